"""The tests of a checkout, on the GPU of this machine."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

__all__ = ["CHECKOUT", "SUITES", "run_suite", "why_no_suite"]

CHECKOUT = Path(__file__).resolve().parents[2]
# what pytest is told, and whether the ordinary tests compute on the GPU
SUITES: dict[str, tuple[list[str], bool]] = {
    "pytest -m gpu": (["-m", "gpu"], False),
    "MINIRES_TEST_DEVICE=cuda pytest": ([], True),
}


def why_no_suite(folder: Path = CHECKOUT) -> str | None:
    """Why the tests cannot run here; None when they can."""
    if not (folder / "tests" / "gpu").is_dir():
        return "an installed package has no tests: clone the repository for them"
    if any(importlib.util.find_spec(name) is None for name in ("pytest", "xdist", "hypothesis")):
        return "pytest is missing: pip install -e '.[test]'"
    return None


def run_suite(words: Sequence[str], everywhere: bool, folder: Path = CHECKOUT) -> dict[str, Any]:
    """Run pytest; what it prints goes to stderr, as it takes minutes."""
    environment = {**os.environ, "MINIRES_TEST_DEVICE": "cuda" if everywhere else ""}
    command = [sys.executable, "-m", "pytest", "-q", "--color=no", *words]
    lines = []
    with subprocess.Popen(
        command,
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as child:
        assert child.stdout is not None
        for line in child.stdout:
            lines.append(line.strip())
            print(line, end="", file=sys.stderr, flush=True)
    failed = [line for line in lines if line.startswith(("FAILED", "ERROR"))]
    summary = next((line for line in reversed(lines) if line), "")
    return {"passed": child.returncode == 0, "summary": summary, "failed": failed}
