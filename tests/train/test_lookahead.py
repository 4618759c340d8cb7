"""The moving average that training goes back to, and what the test-time views average."""

from __future__ import annotations

import signal
from pathlib import Path

import numpy as np
import pytest

from minires import nn
from minires.train import Interrupted, Trainer
from minires.train.evaluate import answer
from minires.train.lookahead import DECAY, Lookahead
from minires.train.metrics import read_lines

from .conftest import MakeTrainer, Toy, assert_same, quiet, results
from .test_trainer import Signals

__all__: list[str] = []


def set_all(model: nn.Module, value: float) -> None:
    for p in model.parameters():
        p.array[...] = value
    for _, buffer in model.named_buffers():
        buffer[...] = value


def test_it_blends_every_few_steps_and_ends_at_the_average():
    model = Toy(8)
    set_all(model, 0.0)
    lookahead = Lookahead(model, every=2, steps=8)
    average = 0.0
    for step in range(1, 9):
        set_all(model, float(step))
        lookahead.after_step(step)
        value = float(step)
        if step % 2 == 0:
            share = DECAY**2 * (step / 8) ** 3
            average = value = share * average + (1 - share) * step
        for array in (model.conv1.weight.array, model.fc.bias.array, model.bn1.running_var):
            np.testing.assert_allclose(array, value, rtol=1e-6)
        assert model.bn1.num_batches_tracked == step  # counted, not averaged


def test_it_goes_back_at_the_end_even_between_blends():
    model = Toy(8)
    set_all(model, 1.0)
    lookahead = Lookahead(model, every=3, steps=4)
    set_all(model, 2.0)
    lookahead.after_step(4)
    assert (model.conv1.weight.array == 1).all()


@pytest.mark.parametrize("stops", [[3], [5, 4]])
def test_an_interrupted_run_with_an_average_ends_the_same(
    trainer: MakeTrainer, tmp_path: Path, stops: list[int]
):
    options = {"lookahead": 2, "augment": True, "alternate_flip": True, "test_views": "shifts"}
    trainer(out="whole", **options).run()
    made = trainer(out="parts", watch=Signals(stops[0], signal.SIGTERM), **options)
    for after in [*stops[1:], 0]:
        with pytest.raises(Interrupted):
            made.run()
        made = Trainer.resume(tmp_path / "parts", sets=made.sets, watch=Signals(after))
    made.run()
    assert_same(results(tmp_path / "whole"), results(tmp_path / "parts"))
    trainer(out="without", **{**options, "lookahead": None}).run()
    assert results(tmp_path / "without")[0] != results(tmp_path / "whole")[0]


# Views


class Spy(nn.Module):
    """Answers with the pixel in the middle, and remembers what it saw."""

    def __init__(self) -> None:
        self.seen: list[np.ndarray] = []

    def forward(self, x: np.ndarray) -> np.ndarray:
        self.seen.append(x)
        return x[:, 2, 1]


def test_views_are_the_image_its_mirror_image_and_both_diagonal_shifts(rng: np.random.Generator):
    x = rng.standard_normal((2, 6, 6, 3)).astype(np.float32)
    spy = Spy()
    np.testing.assert_array_equal(answer(spy, x), x[:, 2, 1])
    flipped = x[:, :, ::-1]
    expected = (x[:, 2, 1] + x[:, 2, 4]) / 2
    np.testing.assert_allclose(answer(spy, x, "flip"), expected, rtol=1e-6)
    spy.seen.clear()
    shifts = (x[:, 1, 0] + x[:, 1, 3] + x[:, 3, 2] + x[:, 3, 5]) / 4
    np.testing.assert_allclose(answer(spy, x, "shifts"), (expected + shifts) / 2, rtol=1e-5)
    assert len(spy.seen) == 6
    np.testing.assert_array_equal(spy.seen[1], flipped)
    np.testing.assert_array_equal(spy.seen[2][:, 1:, 1:], x[:, :-1, :-1])
    np.testing.assert_array_equal(spy.seen[2][:, 0, 1:], x[:, 1, :-1])  # mirrored at the border
    np.testing.assert_array_equal(spy.seen[4][:, :-1, :-1], x[:, 1:, 1:])


def test_both_test_accuracies_are_in_the_last_line(trainer: MakeTrainer, tmp_path: Path):
    summary = trainer(test_views="flip").run()
    lines = read_lines(tmp_path / "run" / "metrics.jsonl")
    assert [line["test_accuracy_views"] is None for line in lines] == [True, True, False]
    assert summary["test_accuracy_views"] == lines[-1]["test_accuracy_views"] > 0.3
    plain = trainer(out="plain").run()
    assert plain["test_accuracy"] == summary["test_accuracy"]
    assert plain["test_accuracy_views"] is None


@pytest.mark.parametrize("model", ["whitened_resnet", "resnet20"])
def test_training_starts_by_whitening(tmp_path: Path, config, model: str):
    from .conftest import TrainConfig, toy_images

    options = {**config.to_dict(), "model": model, "whiten": True, "epochs": 1}
    from minires.train import split_sets

    big = [toy_images(40, seed) for seed in (0, 1)]
    for images in big:
        object.__setattr__(images, "images", images.images.repeat(2, axis=1).repeat(2, axis=2))
    made = Trainer(
        config := TrainConfig(**options), tmp_path / "run", sets=split_sets(config, *big),
        watch=quiet(),
    )  # fmt: skip
    weight = made.model.conv1.weight
    before, pairs = weight.numpy().copy(), weight.shape[3] // 2
    np.testing.assert_array_equal(before[..., :pairs], -before[..., pairs:])
    made.run()
    assert (weight.numpy() == before).all() == (model == "whitened_resnet")  # which keeps it
    if made.model.conv1.bias is not None:
        assert made.model.conv1.bias.numpy().any()
