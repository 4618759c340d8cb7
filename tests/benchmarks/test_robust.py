"""Runs that are killed, damaged, short of disk or told to end go on to the same last bit."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from benchmarks.robust import Case, difference, finish, main

__all__: list[str] = []

TINY = ("--model", "wide_resnet10_1", "--limit", "160", "--batch-size", "16", "--epochs", "3")


@pytest.fixture(scope="module")
def case(tmp_path_factory: pytest.TempPathFactory) -> Case:
    return Case(tmp_path_factory.mktemp("robust"), random.Random(1), *TINY)


@pytest.mark.compiled
def test_killed_and_damaged(case: Case):
    found = case.kill(3, print)
    assert found["kills"] == 3
    assert found["runs"] >= 1
    assert found["different"] == 0


@pytest.mark.compiled
def test_a_full_disk(case: Case):
    assert case.full_disk() == []


@pytest.mark.compiled
def test_sigterm(case: Case):
    assert case.terminate() == []


@pytest.mark.compiled
def test_one_thread_or_two(case: Case, tmp_path: Path):
    """Two processes; metrics and weights do not depend on the number of threads."""
    options = ("--limit", "300", "--batch-size", "50", "--epochs", "1", "--model", "resnet20")
    for threads in ("1", "2"):
        finish(tmp_path / threads, *options, "--threads", threads)
    assert difference(tmp_path / "1", tmp_path / "2") == []


@pytest.mark.slow
def test_forty_kills(tmp_path: Path):
    assert main(["--kills", "40", "--out", str(tmp_path)]) == 0
