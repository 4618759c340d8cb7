"""A recipe's run is trained, resumed and recorded."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks import recipe
from benchmarks.recipe import keep, record, train
from minires.train import ConfigError, TrainConfig, load_recipe
from minires.train import recipes as module
from minires.train.metrics import read_lines

__all__: list[str] = []

TEXT = """about = "x"
[options]
model = "wide_resnet10_1"
limit = 40
batch_size = 8
epochs = 2
test_views = "flip"
"""


def test_a_run_is_trained_and_recorded(tmp_path: Path, monkeypatch):
    folder = tmp_path / "recipes"
    folder.mkdir()
    (folder / "tiny.toml").write_text(TEXT)
    (folder / "measured.jsonl").write_text("")
    monkeypatch.setattr(recipe, "PRODUCT_EVERY", 2)
    monkeypatch.setattr(module, "FOLDER", folder)
    monkeypatch.setattr(module, "MEASURED", folder / "measured.jsonl")
    with pytest.raises(FileNotFoundError):
        record("tiny", tmp_path / "run")
    summary = train("tiny", tmp_path / "run", seed=3)
    assert train("tiny", tmp_path / "run", seed=3) == summary  # nothing more to do
    for _ in range(2):  # the second takes the place of the first
        line = record("tiny", tmp_path / "run", tmp_path / "results")
    assert read_lines(folder / "measured.jsonl") == [line]
    assert line["seed"] == 3
    assert line["test_accuracy"] == summary["test_accuracy"]
    assert line["test_accuracy_views"] == summary["test_accuracy_views"]
    assert 0 < line["cpu_seconds"] == pytest.approx(summary["cpu_seconds"], abs=0.1)
    kept = {path.name for path in (tmp_path / "results" / "tiny-seed3").iterdir()}
    assert kept == {"config.json", "metrics.jsonl", "timing.jsonl", "curves.png", "pace.jsonl"}
    pace = read_lines(tmp_path / "results" / "tiny-seed3" / "pace.jsonl")
    assert [(one["epoch"], one["products"]) for one in pace] == [(1, 2), (2, 2)]  # 5 steps each
    for one, timing in zip(pace, read_lines(tmp_path / "run" / "timing.jsonl"), strict=True):
        assert 0 < one["seconds"] < one["all_seconds"] < timing["train_cpu_seconds"]
    assert load_recipe("tiny").summary()["test_accuracy"]["mean"] == summary["test_accuracy"]

    text = json.loads((tmp_path / "run" / "config.json").read_text())
    text["config"] |= {"batch_size": 9, "data": str(tmp_path)}
    (tmp_path / "run" / "config.json").write_text(json.dumps(text))
    keep(tmp_path / "run", tmp_path / "kept")
    kept = TrainConfig.load(tmp_path / "kept" / "config.json")
    assert (kept.batch_size, kept.data) == (9, None)
    with pytest.raises(ConfigError, match="not a run of tiny: batch_size differ"):
        record("tiny", tmp_path / "run", tmp_path / "results")
