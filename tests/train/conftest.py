"""A toy problem that trains in milliseconds: eight colours, and a network of one convolution."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from minires import models, nn
from minires.data import Dataset
from minires.train import Sets, TrainConfig, Trainer, Watch, split_sets
from minires.train import keeper as keeper_module
from minires.train.metrics import read_lines
from minires.weights import load_file

__all__: list[str] = []

CLASSES = [f"{r}{g}{b}" for r in "01" for g in "01" for b in "01"]


class Toy(nn.Module):
    """Convolution, BatchNorm (a buffer that training changes), dropout (random numbers), linear."""

    def __init__(self, num_classes: int) -> None:
        self.conv1 = nn.Conv2d(3, 8, 3, stride=2, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(8)
        self.drop = nn.Dropout(0.2)
        self.pool = nn.GlobalAvgPool2d()
        self.fc = nn.Linear(8, num_classes)

    def forward(self, x: Any) -> Any:
        return self.fc(self.pool(self.drop(nn.conv_norm(self.conv1, self.bn1, x, relu=True))))


def toy_images(count: int, seed: int = 0) -> Dataset:
    """Noisy 8x8 images of one of eight colours each."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 8, count)
    colours = np.array([[int(c) for c in name] for name in CLASSES]) * 160 + 48
    images = colours[labels][:, None, None, :] + rng.normal(0, 40, (count, 8, 8, 3))
    return Dataset(images.clip(0, 255).astype(np.uint8), labels, CLASSES, "toy")


@pytest.fixture
def toy_model(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever network is asked for, it is the toy. Drawing, which takes longer, is left out."""
    monkeypatch.setattr(models, "build", lambda name, classes, stem=None: Toy(classes))
    monkeypatch.setattr(keeper_module, "draw_curves", lambda path, records, title: None)


@pytest.fixture
def config() -> TrainConfig:
    options = {"optimizer": "sgd", "lr": 0.1, "warmup": 0.3, "augment": False}
    return TrainConfig(epochs=3, batch_size=16, val_fraction=0.2, **options)


MakeTrainer = Callable[..., Trainer]


@pytest.fixture
def trainer(toy_model: None, tmp_path: Path, config: TrainConfig) -> MakeTrainer:
    """Make a trainer of the toy problem: trainer(out="a", lr=1.0)."""

    def make(out: str = "run", watch: Watch | None = None, **options: Any) -> Trainer:
        changed = TrainConfig(**{**config.to_dict(), **options})
        return Trainer(changed, tmp_path / out, sets=toy_sets(changed), watch=watch or quiet())

    return make


def toy_sets(config: TrainConfig) -> Sets:
    return split_sets(config, toy_images(100), toy_images(40, seed=1))


def quiet() -> Watch:
    return Watch(quiet=True)


def results(folder: Path) -> tuple[Any, ...]:
    """What must not depend on how often a run was stopped."""
    last, best = load_file(folder / "last.safetensors"), load_file(folder / "best.safetensors")
    return read_lines(folder / "metrics.jsonl"), last, best


def assert_same(a: tuple[Any, ...], b: tuple[Any, ...]) -> None:
    """Two such results are equal to the last bit."""
    assert a[0] == b[0]
    for left, right in zip(a[1:], b[1:], strict=True):
        np.testing.assert_equal(left.arrays, right.arrays)
        assert left.metadata == right.metadata
