"""Runs on folders of pictures: any number of workers, damaged files, uneven classes."""

from __future__ import annotations

import json
import os
import shutil
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from minires import functional as F
from minires import nn, optim
from minires.errors import PictureError
from minires.train import ConfigError, Interrupted, TrainConfig, Trainer, Watch, load_sets
from minires.train.metrics import read_lines
from minires.train.sets import class_weights
from minires.train.step import TrainStep
from tests.commands import Run
from tests.data.photos import make_folder

from .conftest import assert_same, quiet, results

__all__: list[str] = []

SMALL: dict[str, Any] = {"dataset": "folder", "model": "toy", "image_size": 8, "workers": 0}
OPTIONS = "--dataset folder --model wide_resnet10_1 --stem cifar --image-size 12 --epochs 1"


@pytest.fixture(autouse=True)
def caches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The usual place of copies, for one test."""
    place = tmp_path / "caches"
    monkeypatch.setattr("minires.train.sets.copies_folder", lambda: str(place))
    return place


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three classes of twelve, three damaged, and a file that is no picture."""
    root = tmp_path_factory.mktemp("pictures")
    make_folder(root, "abc", 12, damaged="a/01.png b/03.jpg c/11.webp")
    (root / "a" / "notes.txt").write_text("…")
    return root


@pytest.fixture
def config(folder: Path, toy_model: None, monkeypatch: pytest.MonkeyPatch) -> TrainConfig:
    """For the toy network, whatever it is called."""
    monkeypatch.setattr("minires.models.names", lambda: ["toy"])
    return TrainConfig(**SMALL, data=str(folder), epochs=2, batch_size=8)


def run(config: TrainConfig, out: Path, **options: Any) -> Path:
    Trainer(TrainConfig(**{**config.to_dict(), **options}), out, watch=quiet()).run()
    return out


def test_runs_do_not_depend_on_the_workers(config: TrainConfig, tmp_path: Path):
    alone = run(config, tmp_path / "alone")
    shared = run(config, tmp_path / "shared", workers=2)
    assert_same(results(shared), results(alone))
    listed = (alone / "skipped.txt").read_text()
    assert listed == (shared / "skipped.txt").read_text()
    assert [line.split(":")[0][-8:] for line in listed.splitlines()] == [
        "a/01.png", "b/03.jpg", "/11.webp",
    ]  # fmt: skip
    for line in read_lines(shared / "timing.jsonl") + read_lines(alone / "timing.jsonl"):
        assert 0 < line["decode_cpu_share"] < 1


def test_a_run_that_was_interrupted(config: TrainConfig, tmp_path: Path, monkeypatch):
    """A signal in the second epoch; resumed in other processes; nothing differs, none is left."""
    whole = run(config, tmp_path / "whole")
    made = Trainer(config, tmp_path / "parts", watch=quiet())
    learn = made._learn

    def learn_and_stop(x: Any, target: Any) -> None:
        learn(x, target)
        if made.position.step == 5:
            os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(made, "_learn", learn_and_stop)
    with pytest.raises(Interrupted):
        made.run()
    assert made.sets.reader is not None
    assert made.sets.reader._engine is None
    Trainer.resume(tmp_path / "parts", workers=1, watch=quiet()).run()
    assert_same(results(tmp_path / "parts"), results(whole))
    assert (tmp_path / "parts/skipped.txt").read_text() == (whole / "skipped.txt").read_text()


def test_stopping_at_a_bad_picture(config: TrainConfig, tmp_path: Path):
    with pytest.raises(PictureError, match=r"^/.*: (not a picture|.*runcated|.*decoder)"):
        run(config, tmp_path / "run", on_bad_picture="stop")
    assert not (tmp_path / "run" / "skipped.txt").exists()
    with pytest.raises(PictureError, match=r"/\d\d.*: \d+x\d+ is more than 10 pixels"):
        run(config, tmp_path / "small", on_bad_picture="stop", max_megapixels=1e-5)


def test_no_readable_picture(config: TrainConfig, tmp_path: Path):
    with pytest.raises(PictureError, match=r"class '.': none of its \d+ pictures can be read"):
        run(config, tmp_path / "run", max_megapixels=1e-5)


def test_uneven_classes_count_the_same(config: TrainConfig, folder: Path, tmp_path: Path):
    shutil.copytree(folder, tmp_path / "uneven")
    for file in (tmp_path / "uneven" / "c").glob("0[0-7]*"):
        file.unlink()
    options = {"data": str(tmp_path / "uneven"), "class_weights": "balanced"}
    changed = TrainConfig(**{**config.to_dict(), **options})
    sets = load_sets(changed.resolved())
    weights = class_weights(changed, sets)
    assert weights is not None
    counts = np.bincount(sets.train.labels)
    assert counts[0] > 2 * counts[2]
    np.testing.assert_allclose(weights * counts, len(sets.train) / 3, rtol=1e-6)
    assert class_weights(config, sets) is None
    run(changed, tmp_path / "run")


def test_the_loss_of_a_step_is_weighted():
    x, target = np.ones((3, 4), np.float32), np.array([0, 0, 1])
    losses = []
    for weights in (None, np.array([1, 5], np.float32)):
        model = nn.Linear(4, 2)
        model.bias.assign(np.zeros(2, np.float32))
        model.weight.assign(np.ones((4, 2), np.float32) * [0.1, 0.3])
        sgd = optim.SGD(model.parameters(), 0.1)
        losses.append(TrainStep(model, sgd, sgd, class_weights=weights)(x, target).loss)
    logits = np.array([[0.4, 1.2]] * 3)
    for weights, loss in zip((None, np.array([1.0, 5.0])), losses):
        expected = F.cross_entropy(logits, target, weights).item()
        assert loss == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"dataset": "cifar10", "image_size": 64}, "--image-size: only for --dataset folder"),
        ({"on_bad_picture": "stop"}, "--on-bad-picture: only for --dataset folder"),
        ({"dataset": "folder", "cutout": 8}, "--cutout: not for --dataset folder"),
        ({"dataset": "folder", "crop": 2}, "--crop: not for --dataset folder"),
        ({"dataset": "folder", "crop_area": 1.5}, "--crop-area: must be at most 1, got 1.5"),
        ({"dataset": "folder", "color_jitter": -0.5}, "--color-jitter: must be at least 0"),
        ({"dataset": "folder", "cache_gb": 0.0}, "--cache-gb: must be above 0, got 0.0"),
        ({"cache_pictures": "none"}, "--cache-pictures: only for --dataset folder"),
        ({"dataset": "folder", "workers": -1}, "--workers: must be at least 0, got -1"),
        ({"dataset": "folder", "val_fraction": 0.5, "test_fraction": 0.5}, "0.5 [+] 0.5 leaves"),
        ({"dataset": "folder", "class_weights": "even"}, "--class-weights: unknown value 'even'"),
    ],
)
def test_options_that_cannot_be_meant(options: dict[str, Any], message: str):
    with pytest.raises(ConfigError, match=message):
        TrainConfig(**options).resolved()


def test_no_test_pictures(config: TrainConfig):
    with pytest.raises(ConfigError, match=r"--test-fraction 0.0: leaves no test pictures"):
        load_sets(TrainConfig(**{**config.to_dict(), "test_fraction": 0.0}).resolved())
    options = {"val_fraction": 0.0, "early_stopping": 2}
    with pytest.raises(ConfigError, match=r"--early-stopping: needs validation pictures"):
        load_sets(TrainConfig(**{**config.to_dict(), **options}).resolved())


def test_early_stopping_with_a_folder_of_validation_pictures(
    config: TrainConfig, folder: Path, tmp_path: Path
):
    for split in ("train", "val"):
        shutil.copytree(folder, tmp_path / "data" / split)
    options = {"data": str(tmp_path / "data"), "val_fraction": 0.0, "early_stopping": 1}
    out = run(config, tmp_path / "run", **options)
    assert all(line["val_loss"] > 0 for line in read_lines(out / "metrics.jsonl"))


def test_copies_are_the_default(config: TrainConfig, tmp_path: Path, caches: Path, capsys):
    """Made in the usual place, in a named one or nowhere; the same bits wherever they are."""
    made = Trainer(config, tmp_path / "usual", watch=Watch())
    made.run()
    count = len(list(caches.rglob("*.jpg")))
    assert 0 < count <= 36
    lines = capsys.readouterr().out.splitlines()
    assert lines[1].startswith(f"shrunken copies of large pictures are kept in {caches}: 0 of ")

    whole = results(tmp_path / "usual")
    Trainer(config, tmp_path / "again", watch=Watch()).run()
    assert f"kept in {caches}: {count} of 0." in capsys.readouterr().out
    assert_same(results(tmp_path / "again"), whole)
    assert_same(results(run(config, tmp_path / "bounded", cache_gb=1e-9)), whole)
    elsewhere = tmp_path / "elsewhere"
    assert_same(results(run(config, tmp_path / "named", cache_pictures=str(elsewhere))), whole)
    assert len(list(elsewhere.rglob("*.jpg"))) == count
    (tmp_path / "file").write_text("")
    changed = TrainConfig(**{**config.to_dict(), "cache_pictures": str(tmp_path / "file")})
    Trainer(changed, tmp_path / "refused", watch=Watch()).run()
    assert_same(results(tmp_path / "refused"), whole)
    assert capsys.readouterr().out.count("no copies of pictures are kept: cannot write") == 1

    shutil.rmtree(caches)
    run(config, tmp_path / "without", cache_pictures="none")
    assert not caches.exists()


def test_train_and_evaluate(run: Run, folder: Path, tmp_path: Path, caches: Path):
    """The commands, with worker processes."""
    out = tmp_path / "run"
    words = [*OPTIONS.split(), "--batch-size", "8", "--workers", "1", "--json"]
    words += ["--data", folder, "--out", out]
    code, printed, err = run("train", *words)
    assert code == 0, err
    summary = json.loads(printed.splitlines()[-1])
    assert summary["skipped"] == 3
    assert "1 hidden or foreign files ignored" in err
    assert "pictures that cannot be read: 3, all of them in" in err
    assert f"{folder}/a/01.png: not a picture" in err

    shutil.rmtree(caches)
    code, printed, err = run("evaluate", out, "--json")
    assert code == 0, err
    scores = json.loads(printed)
    assert scores["accuracy"] == summary["test_accuracy"]
    assert scores["loss"] == summary["test_loss"]
    sizes = {"test": 4, "val": 4, "train": 28}
    for split, size in sizes.items():
        code, printed, err = run("evaluate", out, "--split", split, "--json")
        assert code == 0, err
        scores = json.loads(printed)
        assert scores["total"] == size - len(scores["skipped"])

    vectors = tmp_path / "features.npy"
    code, _, err = run("embed", out, "--split", "train", "--output", vectors)
    assert code == 0, err
    rows = (tmp_path / "features.csv").read_text().splitlines()
    assert rows[0] == "file,class"
    assert len(rows) - 1 == len(np.load(vectors)) < 28
    assert rows[1].startswith(f"{folder}/a/")
    assert rows[1].endswith(",a")
    assert not any("01.png,a" in row for row in rows)  # damaged
    assert not caches.exists()
