"""Runs of the toy problem that cannot start or go on: one clear error, and nothing is lost."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from minires.errors import DataError, NonFiniteError
from minires.train import (
    ConfigError,
    Sets,
    TrainConfig,
    Trainer,
    split_sets,
    train,
)
from minires.train.sets import check_images
from minires.weights import load_file

from .conftest import MakeTrainer, assert_same, quiet, results, toy_images

__all__: list[str] = []


def test_a_run_that_cannot_go_on(trainer: MakeTrainer, tmp_path: Path, config: TrainConfig):
    made = trainer()
    with pytest.raises(DataError, match=r"not a run folder: it has no config.json"):
        Trainer.resume(tmp_path)
    with pytest.raises(ConfigError, match=r"--resume: --lr is 0.1 in .*config.json.* 0.5"):
        Trainer.resume(tmp_path / "run", lr=0.5)
    made.run(stop_after_epoch=1)
    other = Sets(toy_images(33), None, toy_images(9), made.sets.mean, made.sets.std)
    with pytest.raises(DataError, match=r"33 training images, the run had 80: not the same data"):
        Trainer.resume(tmp_path / "run", sets=other)


def test_a_folder_with_files_is_not_overwritten(trainer: MakeTrainer, tmp_path: Path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "thesis.tex").write_text("…")
    with pytest.raises(ConfigError, match=r"--out: the folder .*run is not empty: .*--resume"):
        trainer()
    assert [p.name for p in (tmp_path / "run").iterdir()] == ["thesis.tex"]


def test_a_folder_that_cannot_be_written(trainer: MakeTrainer, tmp_path: Path, monkeypatch):
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match=r"cannot write to the run folder .*file/run"):
        trainer(out="file/run")
    (tmp_path / "locked").mkdir(mode=0o500)
    if os.geteuid() == 0:  # root may write anywhere, so pretend
        monkeypatch.setattr("tempfile.TemporaryFile", _refuse)
    with pytest.raises(PermissionError, match=r"cannot write to the run folder .*locked"):
        trainer(out="locked")


def _refuse(**_: Any) -> None:
    raise PermissionError(13, "Permission denied")


def test_a_precision_that_the_cpu_lacks(trainer: MakeTrainer, monkeypatch):
    monkeypatch.setattr("minires.kernels.bf16.AVAILABLE", False)
    with pytest.raises(ConfigError, match=r"--precision bf16: .*no AVX512_BF16.*use float32"):
        trainer(precision="bf16")


@pytest.mark.parametrize("name", ["tf32", "fp16"])
def test_a_precision_of_gpus_on_the_cpu(trainer: MakeTrainer, tmp_path: Path, name: str):
    with pytest.raises(ConfigError, match=f"--precision {name}: .*only GPUs have: .*use float32"):
        trainer(precision=name, device="cpu")
    assert not (tmp_path / "run").exists()


def test_a_failed_start_leaves_no_folder(toy_model: None, tmp_path: Path):
    with pytest.raises(DataError):
        Trainer(TrainConfig(dataset="cifar10", data=str(tmp_path / "no")), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_full_disk_keeps_the_checkpoint(trainer: MakeTrainer, tmp_path: Path, monkeypatch):
    trainer(out="whole").run()
    made = trainer(out="parts")
    made.run(stop_after_epoch=1)
    with monkeypatch.context() as patch:
        patch.setattr("os.fsync", _full)
        with pytest.raises(DataError, match=r"cannot save the run: .*No space left.*--resume"):
            made.run()
    Trainer.resume(tmp_path / "parts", sets=made.sets, watch=quiet()).run()
    assert_same(results(tmp_path / "whole"), results(tmp_path / "parts"))


def _full(*_: object) -> None:
    raise OSError(28, "No space left on device")


def test_nan_stops_with_step_and_op(trainer: MakeTrainer, tmp_path: Path):
    made = trainer(lr=1e30, schedule="constant", warmup=0.0)
    with pytest.raises(NonFiniteError, match=r"step \d+: .+ gave NaN or Inf") as caught:
        made.run()
    assert caught.value.step == made.position.step + 1
    assert caught.value.op
    arrays = load_file(tmp_path / "run" / "last.safetensors").arrays
    assert all(np.isfinite(array).all() for array in arrays.values())


def test_bad_images_are_refused(config: TrainConfig):
    class Floats:
        name, classes = "floats", ["a", "b"]
        images = np.zeros((5, 4, 4, 3), np.float32)

    Floats.images[3, 1, 1, 1] = np.nan
    with pytest.raises(DataError, match=r"floats: image 3 contains NaN or infinity"):
        check_images(Floats)
    with pytest.raises(DataError, match=r"toy: no images"):
        split_sets(config, toy_images(0), toy_images(4))


def test_too_few_images_for_a_split(config: TrainConfig):
    with pytest.raises(ConfigError, match=r"--val-fraction: 0.2 of 2 images is none"):
        split_sets(config, toy_images(2), toy_images(2))


def test_train_in_one_call(toy_model: None, tmp_path: Path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    summary = train(limit=20, epochs=1, batch_size=8)
    assert Path(summary["out"]).parent == Path("runs")
    assert Path(summary["out"]).name.startswith("resnet20-")
    assert summary["finished"]
