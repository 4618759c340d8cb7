"""The fine-tuning benchmark: who sees which images, and that both sides cost the same."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from benchmarks import finetune
from minires.data import Dataset
from minires.train import TrainConfig
from minires.train.metrics import read_lines

__all__: list[str] = []
pytestmark = pytest.mark.usefixtures("one_thread")


def made_up(count: int) -> Dataset:
    """`count` images of each of ten classes; the first pixels number them."""
    n = 10 * count
    images = np.random.default_rng(0).integers(0, 256, (n, 32, 32, 3), dtype=np.uint8)
    images[:, 0, 0, 0], images[:, 0, 0, 1] = np.divmod(np.arange(n), 256)
    return Dataset(images, np.arange(n) % 10, [f"class {k}" for k in range(10)], "cifar10")


def numbers(dataset: Dataset) -> set[int]:
    return set((dataset.images[:, 0, 0, 0].astype(int) * 256 + dataset.images[:, 0, 0, 1]).tolist())


def test_parts_have_the_new_classes_and_nothing_in_common():
    full = made_up(20)
    parts = [finetune.part_of(full, start, start + 5) for start in (0, 5, 10, 15)]
    for part in parts:
        assert np.bincount(part.labels).tolist() == [5] * 5
        assert part.classes == [f"class {k}" for k in range(5, 10)]
        assert {k % 10 for k in numbers(part)} == set(range(5, 10))
    assert len(set.union(*map(numbers, parts))) == 100


def test_both_sides_take_the_same_steps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(finetune, "EACH", 4)
    small = {"dataset": "cifar10", "model": "wide_resnet10_1", "epochs": 1, "batch_size": 10}
    monkeypatch.setattr(finetune, "PRETRAIN", small)
    monkeypatch.setattr(finetune, "SMALL", {**small, "epochs": 2, "val_fraction": 0.0})
    full, test = made_up(10), made_up(3)
    row = finetune.compare(full, test, tmp_path, seed=1)
    assert row["gain"] == pytest.approx(row["tuned"] - row["scratch"])
    runs = {name: read_lines(tmp_path / f"{name}-1" / "metrics.jsonl") for name in row if
            (tmp_path / f"{name}-1").is_dir()}  # fmt: skip
    assert [line["step"] for line in runs["scratch"]] == [2, 4]
    assert [line["step"] for line in runs["tuned"]] == [2, 4]
    assert row["tuned"] == pytest.approx(100 * runs["tuned"][-1]["test_accuracy"])
    config = TrainConfig.load(tmp_path / "tuned-1" / "config.json")
    assert config.init == str(tmp_path / "pretrain-1" / "best.safetensors")
    assert config.reset_head
    assert TrainConfig.load(tmp_path / "scratch-1" / "config.json").init is None
    assert finetune.compare(full, test, tmp_path, seed=1) == row  # what is done is not done again
