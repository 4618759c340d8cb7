"""The benchmark of single layers: every row runs, and a wrong kernel is found out."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from benchmarks import ops, peak
from benchmarks.works import works
from minires.kernels.isa import ISA

__all__: list[str] = []
pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def without_torch(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No rival, and hardly any time: the peak measured here is none, so nobody may keep it."""
    monkeypatch.setattr(ops, "_torch", lambda threads: None)
    monkeypatch.setattr(ops, "TURN", 0.0)
    monkeypatch.setattr(peak, "STEPS", 100)
    peak.peak.cache_clear()
    yield
    peak.peak.cache_clear()


def test_every_row_is_within_its_bounds(without_torch: None, capsys: pytest.CaptureFixture[str]):
    options = "--model resnet20 --batch 2 --rounds 1 --threads 1 --json"
    assert ops.main(options.split()) == 0
    found = json.loads(capsys.readouterr().out)
    kinds = {row["op"] for row in found["rows"]}
    assert kinds >= {"conv forward", "conv input gradient", "conv weight gradient", "sgd step"}
    assert len(found["rows"]) == 3 * 6 - 1 + 3 + 3  # the first layer needs no input gradient
    for row in found["rows"]:
        assert row["ok"]
        assert row["minires_ms"] > 0
        assert (row["gflops"] is not None) == row["op"].startswith("conv")
        assert (row["share_of_peak"] is None) == (row["gflops"] is None or not ISA.width)


def test_a_table_for_some_rows(without_torch: None, capsys: pytest.CaptureFixture[str]):
    options = "--model resnet20 --batch 1 --rounds 1 --threads 1 --only linear"
    assert ops.main(options.split()) == 0
    assert capsys.readouterr().out.splitlines()[-1].endswith("linear both ways        1x64 @ 64x10")


def test_a_wrong_result_is_out_of_bounds():
    work = next(works("resnet20", {"shortcut": "A"}, 8, 1))
    good = ops.measure(work, None, 1, 0)
    assert good["ok"]
    right: Any = work.ours
    bad = ops.measure(replace(work, ours=lambda: right() * np.float32(1.00001)), None, 1, 0)
    assert not bad["ok"]
    assert ops.table_line(bad).endswith("OUT OF BOUNDS")


@pytest.mark.skipif(not ISA.width, reason="plain code has no vector kernels")
def test_the_peak_is_measured():
    found = peak.peak()
    assert found is not None
    assert found > 1  # GFLOP/s
    assert peak.fixed_product() > 0
