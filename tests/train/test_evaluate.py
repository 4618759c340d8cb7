"""Measuring networks, and getting them back from run folders and weight files."""

from __future__ import annotations

import importlib
import math
from pathlib import Path

import numpy as np
import pytest

from minires import models, nn, weights
from minires.errors import DataError, NonFiniteError
from minires.train import ConfigError, evaluate, evaluate_source, load_trained
from minires.train.evaluate import check_classes

from .conftest import MakeTrainer, Toy, toy_images

__all__: list[str] = []


class Constant(nn.Module):
    """Always the same logits."""

    def __init__(self, *logits: float) -> None:
        self.fc = nn.Linear(1, len(logits))
        self.fc.weight.assign(np.zeros((1, len(logits)), np.float32))
        self.fc.bias.assign(np.array(logits, np.float32))

    def forward(self, x):
        return self.fc(np.zeros((len(x), 1), np.float32))


def batches(*labels: list[int]):
    return [(np.zeros((len(some), 4, 4, 3), np.float32), np.array(some)) for some in labels]


def test_accuracy_and_loss_count_by_image():
    tally = evaluate(Constant(0.0, math.log(3.0)), batches([1, 1, 0], [1]))
    assert (tally.correct, tally.total, tally.accuracy) == (3, 4, 0.75)
    assert tally.loss == pytest.approx(-(3 * math.log(0.75) + math.log(0.25)) / 4, rel=1e-6)


def test_it_evaluates_in_evaluation_mode():
    model = Toy(8).train()
    before = model.state_dict()
    x = np.random.default_rng(0).normal(size=(6, 8, 8, 3)).astype(np.float32)
    once = evaluate(model, [(x, np.arange(6))])
    assert evaluate(model, [(x, np.arange(6))]) == once  # no dropout
    assert not model.training
    np.testing.assert_equal(model.state_dict(), before)


def test_nan_is_not_a_loss():
    with pytest.raises(NonFiniteError, match="evaluation: the loss is nan"):
        evaluate(Constant(0.0, math.nan), batches([1]))


@pytest.fixture
def run(trainer: MakeTrainer, tmp_path: Path, monkeypatch) -> Path:
    """A finished run of the toy, on a data set that is there."""
    made = trainer()
    made.run()
    module = importlib.import_module("minires.train.evaluate")  # the name is the function's
    monkeypatch.setattr(module, "load_split", lambda *_: made.sets.test)
    return tmp_path / "run"


def test_a_run_folder_is_measured_as_its_trainer_did(run: Path):
    from minires.train.metrics import read_lines

    line = read_lines(run / "metrics.jsonl")[-1]
    scores = evaluate_source(run)
    assert list(scores) == ["accuracy", "correct", "total", "loss"]
    assert scores["accuracy"] == line["test_accuracy"] == scores["correct"] / scores["total"]
    assert scores["loss"] == line["test_loss"]
    assert evaluate_source(run / "last.safetensors") == scores
    assert evaluate_source(run, which="best")["total"] == scores["total"]


def test_what_is_given_wins_over_the_file(run: Path):
    card = load_trained(run).card
    assert card.model == "resnet20"
    assert card.size == 8
    assert np.shape(card.mean) == (3,)
    half = load_trained(run, normalize="half", size=16).card
    assert (list(half.mean), half.size) == ([0.5] * 3, 16)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"which": "bset"}, "--which: unknown value 'bset', did you mean 'best'"),
        ({"normalize": "images"}, "--normalize: unknown value 'images', did you mean 'imagenet'"),
        ({"device": "gpu"}, "--device: unknown value 'gpu'"),
        ({"dataset": "cifar11"}, "--dataset: unknown value 'cifar11', did you mean 'cifar10'"),
        ({"size": 0}, "--size: must be at least 1, got 0"),
    ],
)
def test_bad_options(run: Path, options: dict, message: str):
    with pytest.raises(ConfigError, match=message):
        load_trained(run, **options)


def test_a_folder_without_weights(tmp_path: Path):
    with pytest.raises(DataError, match=r"not a run folder with weights: it has no last.safetens"):
        load_trained(tmp_path)


def test_a_file_that_is_not_there(tmp_path: Path):
    with pytest.raises(DataError, match=r"no\.pth: cannot be read: No such file"):
        load_trained(tmp_path / "no.pth", model="resnet20", normalize="half")


@pytest.mark.parametrize(
    ("name", "stem", "size"), [("resnet18", "imagenet", 224), ("resnet20", None, 32)]
)
def test_the_network_shows_in_the_tensors(tmp_path: Path, name: str, stem: str | None, size: int):
    with nn.init.skip():
        weights.save(models.build(name, 3, stem), tmp_path / "theirs.safetensors")
    names = ["cat", "dog", "frog"]
    card = load_trained(tmp_path / "theirs.safetensors", normalize="imagenet", classes=names).card
    assert (card.model, card.size, card.classes) == (name, size, names)
    with pytest.raises(ConfigError, match=r"--class-names: 1 names, but .* has 3 classes"):
        load_trained(tmp_path / "theirs.safetensors", normalize="imagenet", classes=["cat"])


def test_a_file_of_others(tmp_path: Path):
    """It holds names and numbers only: the caller says the rest."""
    path = tmp_path / "theirs.safetensors"
    model = models.build("wide_resnet10_1", 7).eval()
    weights.save(model, path)
    with pytest.raises(ConfigError, match=r"which network it is of; give --model NAME"):
        load_trained(path)
    with pytest.raises(ConfigError, match="how to normalise images; give --normalize"):
        load_trained(path, model="wide_resnet10_1")
    with pytest.raises(DataError, match="weights of another model"):
        load_trained(path, model="resnet20", normalize="half")
    with pytest.raises(ConfigError, match=r"--model: unknown value 'resnet-20'"):
        load_trained(path, model="resnet-20", normalize="half")
    with pytest.raises(ConfigError, match="for; give --dataset NAME"):
        evaluate_source(path, model="wide_resnet10_1", normalize="half")
    loaded = load_trained(path, model="wide_resnet10_1", normalize="half")
    assert len(loaded.card.classes) == 7
    np.testing.assert_equal(loaded.model.to("cpu").state_dict(), model.state_dict())


def test_another_number_of_classes(run: Path):
    from minires.data import shapes

    with pytest.raises(DataError, match="has 10 classes, the weights are of resnet20 with 8"):
        check_classes(load_trained(run).card, shapes("test", 10))
    check_classes(load_trained(run).card, toy_images(3))
