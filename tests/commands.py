"""Fixtures that run the `minires` command in this process."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from minires.cli import main

__all__ = ["TINY", "Run", "fails", "finished", "run"]

TINY = ["--model", "wide_resnet10_1", "--limit", "40", "--batch-size", "8", "--epochs", "2"]

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    """Run a command line in this process: (exit code, stdout, stderr)."""

    def call(*words: str | Path) -> tuple[int, str, str]:
        code = main([str(word) for word in words])
        return (code, *capsys.readouterr())

    return call


@pytest.fixture
def fails(run: Run) -> Callable[..., str]:
    """Run a command line that must fail with this code and one line, which is on stderr."""

    def call(code: int, *words: str | Path) -> str:
        got, out, err = run(*words)
        assert (got, out) == (code, "")
        assert err.endswith("\n")
        assert err.count("\n") == 1, err
        assert "Traceback" not in err
        return err

    return call


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run folder."""
    folder = tmp_path_factory.mktemp("runs") / "finished"
    assert main(["train", *TINY, "--out", str(folder), "--quiet"]) == 0
    return folder
