"""Published weights on the real test images: as many are right as in PyTorch."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from minires import cli
from minires.train import evaluate_source
from tests.tolerances import PUBLISHED_LOSS

__all__: list[str] = []

pytestmark = pytest.mark.usefixtures("one_thread")

FILES = {"resnet20": "resnet20-12fca82f.th", "resnet56": "resnet56-4bfd9763.th"}
# correct, and PyTorch's mean cross-entropy, of the first 500 test images and of all
FIRST_500 = {"resnet20": (462, 0.3307591), "resnet56": (466, 0.4085107)}
ALL = {"resnet20": (9173, 0.3726612), "resnet56": (9339, 0.3458293)}


def file_of(shared: Path, name: str) -> Path:
    return shared / "data" / "weights" / FILES[name]


@pytest.mark.parametrize("name", FILES)
def test_500_images(name: str, shared: Path, real_cifar10: Path) -> None:
    scores = evaluate_source(
        file_of(shared, name),
        model=name,
        dataset="cifar10",
        data=str(real_cifar10),
        normalize="imagenet",
        limit=500,
    )
    correct, loss = FIRST_500[name]
    assert scores["total"] == 500
    assert scores["correct"] == correct
    assert scores["loss"] == pytest.approx(loss, rel=PUBLISHED_LOSS)


@pytest.mark.slow
@pytest.mark.parametrize("name", FILES)
def test_all_images_by_the_command(
    name: str, shared: Path, real_cifar10: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = f"evaluate --model {name} --dataset cifar10 --normalize imagenet --json".split()
    paths = ["--weights", str(file_of(shared, name)), "--data", str(real_cifar10)]
    assert cli.main([*words, *paths]) == 0
    scores = json.loads(capsys.readouterr().out.splitlines()[-1])
    correct, loss = ALL[name]
    assert scores["total"] == 10_000
    assert abs(scores["correct"] - correct) <= 1  # a tie of two logits may fall either way
    assert scores["accuracy"] == scores["correct"] / 10_000
    assert scores["loss"] == pytest.approx(loss, rel=PUBLISHED_LOSS)
