"""The degradation study: what it concludes, and that it trains, resumes and draws."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from benchmarks import degradation
from minires.train import TrainConfig

__all__: list[str] = []


def test_what_it_concludes():
    errors = {"plain20": 0.10, "plain56": 0.15, "resnet20": 0.09, "resnet56": 0.07}
    assert degradation.holds(errors)
    assert not degradation.holds(errors | {"plain56": 0.09})
    assert not degradation.holds(errors | {"resnet56": 0.095})


def test_it_trains_each_network_once_and_draws(tmp_path: Path, monkeypatch):
    monkeypatch.setattr(degradation, "NETWORKS", ("plain20", "resnet20"))
    monkeypatch.setattr(degradation, "holds", lambda errors: True)
    base = TrainConfig(limit=24, batch_size=8, epochs=1)
    folders = tmp_path / "runs", tmp_path / "results"
    first = degradation.study(base, *folders)
    assert set(first["train_error"]) == {"plain20", "resnet20"}
    assert all(0 <= error <= 1 for error in first["train_error"].values())
    assert (tmp_path / "results" / "curves.png").read_bytes().startswith(b"\x89PNG")
    when = (tmp_path / "runs" / "plain20" / "last.safetensors").stat().st_mtime_ns
    again = degradation.study(dataclasses.replace(base, epochs=1), *folders)
    assert again["train_error"] == first["train_error"]
    assert (tmp_path / "runs" / "plain20" / "last.safetensors").stat().st_mtime_ns == when
