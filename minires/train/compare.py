"""Runs beside each other: how far they are, how well they do, and in which options they differ."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..errors import DataError
from .config import TrainConfig
from .folder import RunFolder
from .metrics import read_lines

__all__ = ["compare_runs"]

UNIMPORTANT = ("data", "download", "device", "threads", "save_every", "workers", "cache_gb")


def compare_runs(paths: Sequence[str | Path]) -> list[dict[str, Any]]:
    """A dict a run: its folder, model, epochs done and asked for, newest losses and accuracies,
    speed, CPU seconds, the options that not all runs share, and its records.

    Runs may still be going on. Raises DataError for a folder that is no run.
    """
    runs = [_read(Path(path)) for path in paths]
    options = [run["config"].to_dict() for run in runs]
    differing = [
        name
        for name, value in options[0].items()
        if name not in UNIMPORTANT and any(other[name] != value for other in options)
    ]
    for run, values in zip(runs, options, strict=True):
        del run["config"]
        run["options"] = {name: values[name] for name in differing}
    return runs


def _read(path: Path) -> dict[str, Any]:
    folder = RunFolder(path)
    if not folder.config.is_file():
        raise DataError(f"{path}: not a run folder: it has no config.json")
    config = TrainConfig.load(folder.config)
    records = read_lines(folder.metrics) if folder.metrics.exists() else []
    timings = read_lines(folder.timing) if folder.timing.exists() else []
    last: dict[str, Any] = records[-1] if records else {}
    accuracies = [r["val_accuracy"] for r in records if r["val_accuracy"] is not None]
    seconds = sum(t["seconds"] for t in timings)
    images = sum(t["seconds"] * t["img_per_s"] for t in timings)
    return {
        "run": str(path),
        "model": config.model,
        "epochs": len(records),
        "of": config.epochs,
        "train_loss": last.get("train_loss"),
        "train_accuracy": last.get("train_accuracy"),
        "val_accuracy": last.get("val_accuracy"),
        "best_val_accuracy": max(accuracies, default=None),
        "test_accuracy": last.get("test_accuracy"),
        "test_accuracy_views": last.get("test_accuracy_views"),
        "img_per_s": round(images / seconds, 1) if seconds else None,
        "cpu_seconds": round(sum(t.get("cpu_seconds", 0.0) for t in timings), 1),
        "config": config,
        "records": records,
    }
