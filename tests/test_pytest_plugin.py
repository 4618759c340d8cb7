"""The fixture `gradcheck` in somebody else's test suite."""

from __future__ import annotations

import subprocess
import sys
from importlib.metadata import entry_points
from pathlib import Path

import pytest

__all__: list[str] = []

pytest_plugins = "pytester"

SUITE = """
    import numpy as np

    def cube(x):
        return x**3

    def test_right(gradcheck):
        assert gradcheck((cube, lambda g, x: 3 * g * x**2), [np.array([1.0, 2.0])])

    def test_wrong(gradcheck):
        gradcheck((cube, lambda g, x: g * x**2), [np.array([1.0, 2.0])])
"""


@pytest.fixture
def options() -> list[str]:
    """What loads the plugin: nothing where minires is installed, else its name."""
    installed = any(e.value == "minires.pytest_plugin" for e in entry_points(group="pytest11"))
    return [] if installed else ["-p", "minires.pytest_plugin"]


def test_fixture_in_a_suite(pytester: pytest.Pytester, options: list[str]):
    pytester.makepyfile(SUITE)
    result = pytester.runpytest(*options)
    result.assert_outcomes(passed=1, failed=1)
    result.stdout.fnmatch_lines(
        [
            "*GradcheckError: gradcheck cube: FAILED*",
            "*at input 0[[]1[]], output[[]1[]]: analytic 4, numeric 12*",
            "*a constant factor is missing or extra*= numeric / 3*",
        ]
    )


def test_fixture_is_listed(pytester: pytest.Pytester, options: list[str]):
    result = pytester.runpytest(*options, "--fixtures")
    result.stdout.fnmatch_lines(["gradcheck *pytest_plugin.py*"])


def test_declared_as_entry_point(root: Path):
    text = (root / "pyproject.toml").read_text()
    assert '[project.entry-points.pytest11]\nminires = "minires.pytest_plugin"' in text


def test_the_plugin_itself_imports_nothing(child_env: dict[str, str], tmp_path: Path):
    """Beyond pytest and what `import minires` costs: its file run alone loads no module of ours."""
    code = (
        "import runpy, sys, pytest; runpy.run_path(sys.argv[1]); "
        "print([m for m in sys.modules if m.split('.')[0] in ('minires', 'numba', 'numpy')])"
    )
    plugin = Path(sys.modules["minires"].__file__ or "").parent / "pytest_plugin.py"
    run = subprocess.run(
        [sys.executable, "-c", code, str(plugin)],
        cwd=tmp_path, env=child_env, check=True, capture_output=True, text=True,
    )  # fmt: skip
    assert run.stdout.strip() == "[]"
