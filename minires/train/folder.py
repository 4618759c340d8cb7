"""The run folder: which files it holds, checks before the first step, and weight files that say
what they are.

config.json                       the options, and the versions and machine that ran them
metrics.jsonl, timing.jsonl       a line an epoch
curves.png                        the same, drawn
skipped.txt                       pictures that could not be read, and why
last.safetensors                  weights after the newest epoch, in PyTorch's names and layouts
best.safetensors                  weights of the best epoch
checkpoint[.previous].safetensors what resuming needs
"""

from __future__ import annotations

import contextlib
import json
import os
import platform
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numba
import numpy as np

from .. import weights
from ..errors import DataError
from ..version import __version__
from .config import ConfigError, TrainConfig
from .metrics import replace_text

__all__ = ["Card", "RunFolder", "versions"]


@dataclass(frozen=True)
class Card:
    """What a weight file says about itself in its metadata, enough to rebuild the network and feed
    it.

    `mean` and `std` are of pixels on the scale 0-1, one a channel; `size` is the side of an input
    image in pixels.
    """

    model: str
    stem: str | None
    classes: Sequence[str]
    mean: Sequence[float]
    std: Sequence[float]
    size: int
    dataset: str = ""

    def to_metadata(self, **more: Any) -> dict[str, str]:
        """As the strings that safetensors keeps; everything but names is JSON."""
        arguments = {"num_classes": len(self.classes)}
        if self.stem is not None:
            arguments |= {"stem": self.stem}
        fields = {
            "arguments": arguments,
            "classes": list(self.classes),
            "mean": [float(value) for value in self.mean],
            "std": [float(value) for value in self.std],
            "input_size": self.size,
        }
        text = {key: json.dumps(value) for key, value in (fields | more).items()}
        return {"model": self.model, "dataset": self.dataset, "minires": __version__, **text}

    @classmethod
    def from_metadata(cls, metadata: dict[str, str], path: str | Path) -> Card:
        """Raises DataError when `path`, whose metadata this is, was not written by minires."""
        try:
            return cls(
                model=metadata["model"],
                stem=json.loads(metadata["arguments"]).get("stem"),
                classes=json.loads(metadata["classes"]),
                mean=json.loads(metadata["mean"]),
                std=json.loads(metadata["std"]),
                size=int(metadata["input_size"]),
                dataset=metadata.get("dataset", ""),
            )
        except (KeyError, ValueError, AttributeError) as error:
            reason = f"{path}: its metadata does not say which network this is ({error})"
            raise DataError(f"{reason}; give --model and --dataset") from None


class RunFolder:
    """Paths of a run folder, and the writing of its files."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.config = self.path / "config.json"
        self.metrics = self.path / "metrics.jsonl"
        self.timing = self.path / "timing.jsonl"
        self.skipped = self.path / "skipped.txt"
        self.curves = self.path / "curves.png"
        self.last = self.path / "last.safetensors"
        self.best = self.path / "best.safetensors"
        self._made: list[Path] = []  # folders that were not there before, innermost first

    @classmethod
    def new(cls, path: str | Path | None, model: str) -> RunFolder:
        """Create an empty folder: `path`, or `runs/<model>-<time>` without one.

        Raises ConfigError when it holds files already, OSError when it cannot be written.
        """
        if path is None:
            stamp = Path("runs") / f"{model}-{time.strftime('%Y%m%d-%H%M%S')}"
            path, count = stamp, 1
            while Path(path).exists():
                count += 1
                path = Path(f"{stamp}-{count}")
        folder = cls(path)
        if folder.path.is_dir() and any(folder.path.iterdir()):
            remedy = f"name another --out, or go on with it by --resume {path}"
            raise ConfigError(f"--out: the folder {path} is not empty: {remedy}")
        folder.check_writable(create=True)
        return folder

    @classmethod
    def existing(cls, path: str | Path) -> RunFolder:
        """A folder that a run has left. Raises DataError when it is none, OSError when it cannot be
        written.
        """
        folder = cls(path)
        if not folder.config.is_file():
            raise DataError(f"{path}: not a run folder: it has no config.json")
        folder.check_writable()
        for half in folder.path.glob(".*.tmp"):  # of a process that was killed while writing
            half.unlink()
        return folder

    def check_writable(self, create: bool = False) -> None:
        """Raise OSError now rather than after the first epoch."""
        try:
            if create:
                self._made = [p for p in (self.path, *self.path.parents) if not p.exists()]
                self.path.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=self.path):
                pass
        except OSError as error:
            reason = error.strerror or error
            raise type(error)(f"cannot write to the run folder {self.path}: {reason}") from None

    def discard(self) -> None:
        """Remove the folders that were made for a run which never began."""
        with contextlib.suppress(OSError):  # not empty
            for path in self._made:
                path.rmdir()

    def write_config(self, config: TrainConfig, device: str) -> None:
        """Everything needed to run it again, with versions."""
        record = {"config": config.to_dict(), "device": device, "versions": versions()}
        replace_text(self.config, json.dumps(record, indent=2) + "\n")

    def save_weights(self, path: Path, model: Any, card: Card, **more: Any) -> None:
        """Write the weights of `model` with what `card` says, and `more` (epoch, step)."""
        weights.save(model, path, metadata=card.to_metadata(**more))


def versions() -> dict[str, Any]:
    """Versions and machine, for config.json and `minires info`."""
    return {
        "minires": __version__,
        "python": platform.python_version(),
        "numpy": np.__version__,
        "numba": numba.__version__,
        "platform": platform.platform(),
        "cpus": os.cpu_count(),
    }
