"""Whole runs of the toy problem: what they leave, and that a resumed one ends the same."""

from __future__ import annotations

import json
import shutil
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from minires.backend import to_device
from minires.train import Interrupted, Trainer, Watch, evaluate
from minires.train.checkpoint import NEWEST
from minires.train.metrics import METRICS, read_lines
from minires.weights import load_file

from .conftest import CLASSES, MakeTrainer, assert_same, quiet, results

__all__: list[str] = []


class Signals(Watch):
    """Sends this process a signal after so many batches, of training and of evaluation."""

    def __init__(self, after: int, number: int = signal.SIGINT) -> None:
        super().__init__(quiet=True)
        self.left, self.number = after, number

    @contextmanager
    def bar(self, title: str, total: int | None, done: int = 0) -> Iterator[Any]:
        with super().bar(title, total, done) as bar:
            advance = bar.update

            def update(count: int) -> None:
                advance(count)
                self.left -= 1
                if self.left == 0:
                    signal.raise_signal(self.number)

            bar.update = update
            yield bar


# What a run leaves


def test_a_run_learns_and_leaves_its_files(trainer: MakeTrainer, tmp_path: Path):
    summary = trainer().run()
    folder = tmp_path / "run"
    lines, timings = read_lines(folder / "metrics.jsonl"), read_lines(folder / "timing.jsonl")
    assert [tuple(line) for line in lines] == [METRICS] * 3
    assert [line["epoch"] for line in lines] == [1, 2, 3]
    assert [line["step"] for line in lines] == [5, 10, 15]  # 80 images in batches of 16
    assert all(0 <= line["val_accuracy"] <= 1 for line in lines)
    assert [line["test_accuracy"] is None for line in lines] == [True, True, False]
    assert lines[-1]["train_loss"] < lines[0]["train_loss"]
    keys = ("epoch", "img_per_s", "seconds", "cpu_seconds", "train_cpu_seconds", "memory_mb")
    assert [tuple(t) for t in timings] == [keys] * 3
    assert all(t["img_per_s"] > 0 < t["train_cpu_seconds"] < t["cpu_seconds"] for t in timings)
    assert summary["finished"]
    assert summary["test_accuracy"] == lines[-1]["test_accuracy"] > 0.3
    record = json.loads((folder / "config.json").read_text())
    assert record["config"]["lr"] == 0.1
    assert {"minires", "numpy", "numba", "python"} <= record["versions"].keys()


def test_weight_files_say_what_they_are(trainer: MakeTrainer, tmp_path: Path):
    trainer().run()
    file = load_file(tmp_path / "run" / "best.safetensors")
    assert file.arrays["conv1.weight"].shape == (8, 3, 3, 3)  # (k, c, r, s), as PyTorch has it
    metadata = file.metadata
    assert metadata["model"] == "resnet20"
    assert json.loads(metadata["arguments"]) == {"num_classes": 8, "stem": "cifar"}
    assert json.loads(metadata["classes"]) == CLASSES
    assert len(json.loads(metadata["mean"])) == len(json.loads(metadata["std"])) == 3
    assert metadata["input_size"] == "8"


def test_best_is_chosen_by_validation(trainer: MakeTrainer, tmp_path: Path):
    summary = trainer(epochs=5, lr=0.3).run()
    lines = read_lines(tmp_path / "run" / "metrics.jsonl")
    best = max(lines, key=lambda line: (line["val_accuracy"], -line["val_loss"]))
    assert summary["best_epoch"] == best["epoch"]
    assert load_file(tmp_path / "run" / "best.safetensors").metadata["epoch"] == str(best["epoch"])
    assert load_file(tmp_path / "run" / "last.safetensors").metadata["epoch"] == "5"


def test_without_a_validation_split_training_loss_chooses(trainer: MakeTrainer, tmp_path: Path):
    summary = trainer(val_fraction=0.0).run()
    lines = read_lines(tmp_path / "run" / "metrics.jsonl")
    assert all(line["val_accuracy"] is None for line in lines)
    assert summary["best_epoch"] == min(lines, key=lambda line: line["train_loss"])["epoch"]
    assert lines[0]["step"] == 7  # 100 images: all of them


def test_early_stopping_goes_back_to_the_lowest_loss_and_tests_that(
    trainer: MakeTrainer, tmp_path: Path
):
    made = trainer(epochs=30, lr=0.5, schedule="constant", early_stopping=2)
    summary = made.run()
    lines = read_lines(tmp_path / "run" / "metrics.jsonl")
    assert summary["finished"]
    losses = [line["val_loss"] for line in lines]
    assert summary["best_epoch"] == 1 + losses.index(min(losses)) == len(lines) - 2 < 28
    _, last, best = results(tmp_path / "run")
    assert last.metadata["epoch"] == str(summary["best_epoch"])
    np.testing.assert_equal(last.arrays, best.arrays)
    mean = to_device(made.model.state_dict()["bn1.running_mean"], "cpu")
    np.testing.assert_equal(mean, best.arrays["bn1.running_mean"])
    tested = evaluate(made.model, made.sets.eval_loader(made.sets.test))
    assert lines[-1]["test_loss"] == tested.loss


def test_early_stopping_at_the_last_epoch_goes_back_too(trainer: MakeTrainer, tmp_path: Path):
    summary = trainer(epochs=6, lr=0.5, schedule="constant", early_stopping=6).run()
    assert summary["best_epoch"] < 6
    assert load_file(tmp_path / "run" / "last.safetensors").metadata["epoch"] != "6"


def test_interrupted_while_the_best_weights_are_tested(trainer: MakeTrainer, tmp_path: Path):
    options = {"epochs": 30, "lr": 0.5, "schedule": "constant", "early_stopping": 2}
    trainer(out="whole", **options).run()
    epochs = len(read_lines(tmp_path / "whole" / "metrics.jsonl"))
    made = trainer(out="parts", watch=Signals(6 * epochs + 1), **options)  # 5 + 1 batches an epoch
    with pytest.raises(Interrupted):
        made.run()
    assert load_file(tmp_path / "parts" / "last.safetensors").metadata["epoch"] == str(epochs - 1)
    Trainer.resume(tmp_path / "parts", sets=made.sets, watch=quiet()).run()
    assert_same(results(tmp_path / "whole"), results(tmp_path / "parts"))


@pytest.mark.parametrize("schedule", ["onecycle", "triangular", "cosine", "step", "constant"])
def test_schedules(trainer: MakeTrainer, tmp_path: Path, schedule: str):
    trainer(epochs=8, schedule=schedule, warmup=0.25, val_fraction=0.0).run()
    rates = [line["learning_rate"] for line in read_lines(tmp_path / "run" / "metrics.jsonl")]
    assert max(rates) <= 0.1
    assert max(rates) > 0.09
    assert rates[0] < 0.09  # warming up
    last = {
        "triangular": 0.0071,
        "onecycle": 1e-4,
        "cosine": 1e-2,
        "step": 0.0011,
        "constant": 0.1,
    }[schedule]
    assert rates[-1] <= last


@pytest.mark.parametrize("optimizer", ["sgd", "muon", "adam", "adamw"])
def test_optimizers(trainer: MakeTrainer, optimizer: str):
    assert trainer(optimizer=optimizer, lr=None, momentum=0.5).run()["finished"]


def test_a_last_batch_of_one_image_is_left_out(trainer: MakeTrainer):
    made = trainer(batch_size=79)  # 80 training images; BatchNorm cannot normalise one number
    assert len(made.loader) == 1
    made.run()


# Going on


@pytest.mark.parametrize("stops", [[1], [2, 1], [4, 6, 3], [5], [6]])
def test_an_interrupted_run_ends_as_an_undisturbed_one(
    trainer: MakeTrainer, tmp_path: Path, stops: list[int]
):
    """Stops within epochs, at their ends and within evaluations: an epoch has 5 + 1 batches."""
    trainer(out="whole", augment=True).run()
    made = trainer(out="parts", augment=True, watch=Signals(stops[0]))
    for after in [*stops[1:], 0]:
        with pytest.raises(Interrupted, match=r"SIGINT.*minires train --resume .*parts"):
            made.run()
        made = Trainer.resume(tmp_path / "parts", sets=made.sets, watch=Signals(after))
    made.run()
    assert_same(results(tmp_path / "whole"), results(tmp_path / "parts"))


def test_stopping_after_an_epoch_does_not_change_the_run(trainer: MakeTrainer, tmp_path: Path):
    trainer(out="whole").run()
    made = trainer(out="parts")
    summary = made.run(stop_after_epoch=1)
    assert not summary["finished"]
    assert summary["test_accuracy"] is None
    Trainer.resume(tmp_path / "parts", sets=made.sets, watch=quiet()).run()
    assert_same(results(tmp_path / "whole"), results(tmp_path / "parts"))


def test_a_damaged_checkpoint_costs_an_epoch_and_nothing_else(
    trainer: MakeTrainer, tmp_path: Path, capsys
):
    trainer(out="whole").run()
    made = trainer(out="parts")
    made.run(stop_after_epoch=2)
    newest = tmp_path / "parts" / NEWEST
    newest.write_bytes(newest.read_bytes()[:-9])
    resumed = Trainer.resume(tmp_path / "parts", sets=made.sets)
    assert "going on from the checkpoint before" in capsys.readouterr().out
    assert resumed.position.epoch == 1
    resumed.run()
    assert_same(results(tmp_path / "whole"), results(tmp_path / "parts"))


def test_killed_before_the_first_checkpoint(trainer: MakeTrainer, tmp_path: Path):
    made = trainer(out="whole")
    shutil.copytree(tmp_path / "whole", tmp_path / "parts")
    made.run()
    Trainer.resume(tmp_path / "parts", sets=made.sets, watch=quiet()).run()
    assert_same(results(tmp_path / "whole"), results(tmp_path / "parts"))


def test_a_finished_run_stays_as_it_is(trainer: MakeTrainer, tmp_path: Path):
    made = trainer()
    summary = made.run()
    before = results(tmp_path / "run")
    again = Trainer.resume(tmp_path / "run", sets=made.sets, watch=quiet()).run()
    assert again == summary
    assert_same(results(tmp_path / "run"), before)


def test_sigterm_saves_too(trainer: MakeTrainer, tmp_path: Path):
    made = trainer(watch=Signals(3, signal.SIGTERM))
    with pytest.raises(Interrupted, match=r"SIGTERM in epoch 1, after step 3"):
        made.run()
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL  # handlers are as they were
    assert Trainer.resume(tmp_path / "run", sets=made.sets).position.batch == 3


def test_long_epochs_are_saved_inside(trainer: MakeTrainer, tmp_path: Path, monkeypatch):
    saved = []
    made = trainer(epochs=1, save_every=1e-9)
    save = made.keeper.checkpoint
    monkeypatch.setattr(made.keeper, "checkpoint", lambda at: (saved.append(at.batch), save(at)))
    made.run()
    assert saved == [1, 2, 3, 4, 5, 0]


def test_the_seed_decides(trainer: MakeTrainer, tmp_path: Path):
    for out, seed in (("a", 0), ("b", 0), ("c", 1)):
        trainer(out=out, seed=seed).run()
    assert_same(results(tmp_path / "a"), results(tmp_path / "b"))
    assert results(tmp_path / "a")[0] != results(tmp_path / "c")[0]
