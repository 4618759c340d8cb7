"""Runs that are killed, damaged, short of disk or told to end go on to the same last bit."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from benchmarks.robust import Case, main

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


@pytest.mark.slow
def test_forty_kills(tmp_path: Path):
    assert main(["--kills", "40", "--out", str(tmp_path)]) == 0
