"""The wheel holds every module and every .cu file, works alone, and is cheap to import."""

from __future__ import annotations

import json
import os
import shutil
import statistics
import subprocess
import sys
import venv
from pathlib import Path

import pytest

import minires

__all__: list[str] = []

PROBE = """
import importlib, json, pathlib, pkgutil, sys
import minires
names = [m.name for m in pkgutil.walk_packages(minires.__path__, "minires.")]
for name in names:
    if name != "minires.__main__":
        importlib.import_module(name)
folder = pathlib.Path(minires.__file__).parent
files = [p for p in folder.rglob("*") if p.suffix in (".cu", ".cuh", ".typed", ".toml", ".jsonl")]
files = [str(p.relative_to(folder)) for p in files]
others = [n for n in sys.modules if n.split(".")[0] in ("kernels", "tests", "benchmarks")]
print(json.dumps([minires.__version__, str(folder), sorted(names), sorted(files), others]))
"""


@pytest.fixture(scope="module")
def installed(root: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, str]]:
    """An otherwise empty environment with the wheel in it; numpy and the like come from this one.

    The wheel is built from a copy, because setuptools would pack what an old build/ still holds.
    """
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    source.mkdir()
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        if (root / name).exists():
            shutil.copy(root / name, source)
    for name in ("kernels", "minires"):
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(root / name, source / name, symlinks=True, ignore=ignored)
    env = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet"]
    build = [*pip, "wheel", "--no-deps", "--no-build-isolation", "--no-index", "-w", folder, source]
    subprocess.run(build, check=True, env=env)
    (wheel,) = folder.glob("minires-*.whl")

    venv.create(folder / "env", with_pip=False, symlinks=True)
    python = folder / "env" / "bin" / "python"
    install = ["--python", python, "install", "--no-deps", "--no-index", "--quiet", wheel]
    subprocess.run([*pip, *install], check=True, env=env)
    # a folder named in a .pth file is searched last, and the .pth files inside it (our own editable
    # install among them) are not read
    (site,) = (folder / "env" / "lib").glob("python*/site-packages")
    ours = [p for p in sys.path if p.endswith("site-packages")]
    (site / "borrowed.pth").write_text("\n".join(ours) + "\n")
    return python, env


def test_wheel_holds_everything(
    installed: tuple[Path, dict[str, str]], root: Path, tmp_path: Path
) -> None:
    python, env = installed
    command = [python, "-c", PROBE]
    probe = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True)
    assert probe.returncode == 0, probe.stderr
    version, folder, modules, files, others = json.loads(probe.stdout)
    assert version == minires.__version__
    assert Path(folder).is_relative_to(python.parents[1])

    layers = (root / "tests" / "layers.txt").read_text().split()
    expected = {m.replace("kernels", "minires.kernels", 1) if m[0] == "k" else m for m in layers}
    assert set(modules) == expected - {"minires"}
    cuda = [f"kernels/{p.name}" for p in (root / "kernels").glob("*.cu*")]
    recipes = [f"recipes/{p.name}" for p in (root / "minires" / "recipes").iterdir()]
    assert files == sorted([*cuda, *recipes, "py.typed"])
    assert not others


def test_installed_command_answers(installed: tuple[Path, dict[str, str]], tmp_path: Path) -> None:
    python, env = installed
    command = [python.with_name("minires"), "--help"]
    run = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    assert "train" in run.stdout


def test_import_is_cheap(child_env: dict[str, str], tmp_path: Path) -> None:
    """At most 0.3 s of CPU over importing numba, and neither CuPy nor matplotlib comes along."""
    code = (
        "import time, sys, numba; start = time.process_time(); import minires; "
        "print(time.process_time() - start, 'cupy' in sys.modules, 'matplotlib' in sys.modules)"
    )
    # with bytecode in place, as after anyone's first import
    env = {**child_env, "PYTHONPYCACHEPREFIX": str(tmp_path), "PYTHONDONTWRITEBYTECODE": ""}
    seconds = []
    for _ in range(5):
        run = subprocess.run(
            [sys.executable, "-c", code],
            cwd=tmp_path, env=env, check=True, capture_output=True, text=True,
        )  # fmt: skip
        took, cupy, matplotlib = run.stdout.split()
        assert (cupy, matplotlib) == ("False", "False")
        seconds.append(float(took))
    assert statistics.median(seconds) <= 0.3, seconds
