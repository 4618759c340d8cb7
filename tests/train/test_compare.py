"""Runs beside each other."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from minires.train import Trainer
from minires.train.metrics import read_lines

from ..commands import Run
from .conftest import MakeTrainer, quiet

__all__: list[str] = []


def test_runs_are_compared(trainer: MakeTrainer, tmp_path: Path, run: Run):
    done = trainer(out="done").run()
    trainer(out="going", lr=0.2, threads=1).run(stop_after_epoch=1)
    trainer(out="begun")
    folders = [tmp_path / name for name in ("done", "going", "begun")]
    code, out, _ = run("compare", *folders, "--json", "--plot", tmp_path / "all.png")
    assert code == 0
    rows = json.loads(out)["runs"]
    assert [(row["epochs"], row["of"]) for row in rows] == [(3, 3), (1, 3), (0, 3)]
    assert [row["options"] for row in rows] == [{"lr": 0.1}, {"lr": 0.2}, {"lr": 0.1}]
    assert rows[0]["test_accuracy"] == done["test_accuracy"]
    assert rows[0]["cpu_seconds"] > 0
    assert rows[1]["test_accuracy"] is rows[2]["val_accuracy"] is None
    assert (tmp_path / "all.png").read_bytes().startswith(b"\x89PNG")
    code, out, _ = run("compare", *folders)
    assert code == 0
    assert len(out.splitlines()) == 4
    assert f"{100 * done['test_accuracy']:.2f}" in out
    assert "lr 0.2" in out


def test_event_files(trainer: MakeTrainer, tmp_path: Path, monkeypatch):
    written = []

    class Writer:
        def __init__(self, folder: str) -> None:
            written.append(Path(folder).name)

        def add_scalar(self, tag: str, value: float, step: int) -> None:
            written.append((tag, step))

        def flush(self) -> None: ...

        def close(self) -> None:
            written.append("closed")

    monkeypatch.setitem(sys.modules, "tensorboardX", SimpleNamespace(SummaryWriter=Writer))
    made = trainer(tensorboard=True)
    made.run(stop_after_epoch=1)
    assert (written[0], written[-1]) == ("tensorboard", "closed")
    assert {("train/loss", 1), ("val/accuracy", 1), ("run/grad_norm", 1)} <= set(written)
    assert ("run/img_per_s", 1) in written
    written.clear()
    Trainer.resume(tmp_path / "run", sets=made.sets, watch=quiet()).run()
    assert {("train/loss", 1), ("train/loss", 3), ("test/accuracy", 3)} <= set(written)


def test_dead_channels_are_counted(trainer: MakeTrainer, tmp_path: Path):
    made = trainer(dead_relus=True)
    made.model.bn1.bias.array[:3] = -1e3  # of 8 channels; no step brings them back
    made.run()
    lines = read_lines(tmp_path / "run" / "metrics.jsonl")
    assert [line["dead_relus"] for line in lines] == [3 / 8] * 3
    plain = trainer(out="plain")
    plain.model.bn1.bias.array[:3] = -1e3
    plain.run()
    after = read_lines(tmp_path / "plain" / "metrics.jsonl")
    assert [line["dead_relus"] for line in after] == [None] * 3
    assert [line["train_loss"] for line in after] == [line["train_loss"] for line in lines]


def test_event_files_without_the_package(trainer: MakeTrainer, monkeypatch, tmp_path: Path):
    monkeypatch.setitem(sys.modules, "tensorboardX", None)
    with pytest.raises(ImportError, match=r"needs the package tensorboardX: pip install"):
        trainer(tensorboard=True)
    assert not (tmp_path / "run").exists()


def test_a_folder_without_a_run(fails, tmp_path: Path):
    assert "not a run folder" in fails(1, "compare", tmp_path)
