"""The examples at the end of every command's help work as printed, in an empty folder."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from minires.commands import COMMANDS
from tests.commands import Run
from tests.gpu.everywhere import EVERYWHERE

__all__: list[str] = []

NAMES = [module.__name__.rpartition(".")[2] for module in COMMANDS]
NAMES.remove("device_test")  # needs a GPU; see tests/gpu/test_device_test.py
PLACEHOLDER = re.compile(r"\b[A-Z]{3,}\b")  # RUN, FILE, DIR: the reader's own
LONG = ["minires train", "minires gradcheck"]  # minutes; other tests do the same with less


def examples(text: str) -> list[str]:
    """The lines below "examples:" that stand for themselves."""
    block = text.partition("examples:\n")[2].partition("\n\n")[0]
    return [line.strip() for line in block.splitlines() if not PLACEHOLDER.search(line)]


@pytest.mark.parametrize("name", NAMES)
def test_examples_of_the_help(run: Run, name: str, tmp_path: Path, monkeypatch):
    lines = examples(run(name, "--help")[1])
    monkeypatch.chdir(tmp_path)
    assert any(line.split()[:2] == ["minires", name] for line in lines)
    for line in lines:
        if line in LONG:
            continue
        if EVERYWHERE:  # the stand-in device takes half a minute for 200 images
            line = line.replace("--limit 200", "--limit 24").replace("--report", "--limit 24")
        code, _, err = run(*shlex.split(line)[1:])
        assert code == 0, f"{line}: {err}"


@pytest.mark.slow
@pytest.mark.parametrize("line", LONG)
def test_long_examples(run: Run, line: str, tmp_path: Path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert run(*shlex.split(line)[1:])[0] == 0
