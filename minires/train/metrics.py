"""What is measured: running sums, how far a run has come, and the files of a line an epoch."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

__all__ = [
    "METRICS",
    "Position",
    "Tally",
    "append_line",
    "epoch_record",
    "read_lines",
    "replace_text",
    "score_of",
    "to_json",
    "write_lines",
]

# The columns of metrics.jsonl. Accuracies are fractions 0-1; null where not measured.
METRICS = (
    "epoch",
    "step",
    "train_loss",
    "train_accuracy",
    "val_loss",
    "val_accuracy",
    "test_loss",
    "test_accuracy",
    "learning_rate",
    "grad_norm",
    "dead_relus",
    "test_accuracy_views",
)


@dataclass
class Tally:
    """Sums over images, so that batches of different sizes count right.

    >>> tally = Tally()
    >>> tally.add(loss=2.0, correct=1, count=2)
    >>> tally.add(loss=5.0, correct=0, count=1)
    >>> tally.loss, tally.accuracy
    (3.0, 0.3333333333333333)
    """

    loss_sum: float = 0.0
    correct: int = 0
    total: int = 0

    def add(self, loss: float, correct: int, count: int) -> None:
        """Count one batch: its mean loss, how many were right, how many there were."""
        self.loss_sum += loss * count
        self.correct += correct
        self.total += count

    @property
    def mean_loss(self) -> float:
        """Mean loss an image; NaN before the first."""
        return self.loss_sum / self.total if self.total else math.nan

    @property
    def loss(self) -> float | None:
        """Mean loss an image; None before the first."""
        return self.mean_loss if self.total else None

    @property
    def accuracy(self) -> float | None:
        """Share of right answers, 0-1; None before the first."""
        return self.correct / self.total if self.total else None

    def to_dict(self) -> dict[str, float | int]:
        """Plain numbers, from which `Tally(**d)` goes on exactly."""
        return asdict(self)


@dataclass(frozen=True)
class Verdict:
    """Of an epoch: better than all before; the last; the run ends with the best one's weights."""

    better: bool
    last: bool
    goes_back: bool


@dataclass
class Position:
    """How far a run has come. `epoch` counts finished epochs, `batch` those done of the next."""

    epoch: int = 0
    batch: int = 0
    step: int = 0
    rate: float = 0.0  # of the newest step
    tally: Tally = field(default_factory=Tally)  # of this epoch's training batches
    norms: float = 0.0  # the sum of their gradients' norms
    seconds: float = 0.0  # spent on them
    cpu_seconds: float = 0.0  # of all cores since the last epoch's end, measuring included
    train_cpu_seconds: float = 0.0  # of them, those of the training batches
    best: list[float] | None = None  # the score of the best epoch: larger is better
    best_epoch: int = 0
    finished: bool = False
    records: list[dict[str, Any]] = field(default_factory=list)
    timings: list[dict[str, Any]] = field(default_factory=list)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Position:
        """The inverse of `dataclasses.asdict`."""
        return cls(**{**values, "tally": Tally(**values["tally"])})

    def timing(self) -> dict[str, Any]:
        """The line of timing.jsonl for the epoch under way: speed and time of its training
        batches, the CPU time of everything and of these alone, and the memory in use now.
        """
        return {
            "epoch": self.epoch + 1,
            "img_per_s": round(self.tally.total / self.seconds, 2),
            "seconds": round(self.seconds, 3),
            "cpu_seconds": round(self.cpu_seconds, 3),
            "train_cpu_seconds": round(self.train_cpu_seconds, 3),
            "memory_mb": resident_memory(),
        }

    def judge(self, score: list[float], epochs: int, patience: int | None) -> Verdict:
        """What the epoch under way is, by its score and the early stopping's patience."""
        better = self.best is None or score > self.best
        waited = 0 if better else self.epoch + 1 - self.best_epoch
        last = self.epoch + 1 == epochs or (patience is not None and waited >= patience)
        return Verdict(better, last, last and patience is not None and not better)

    def end_epoch(
        self, record: dict[str, Any], timing: dict[str, Any], score: list[float], found: Verdict
    ) -> None:
        """Go on to the next epoch."""
        self.epoch, self.batch, self.tally, self.finished = self.epoch + 1, 0, Tally(), found.last
        self.norms = self.seconds = self.cpu_seconds = self.train_cpu_seconds = 0.0
        if found.better:
            self.best, self.best_epoch = score, self.epoch
        self.records.append(record)
        self.timings.append(timing)

    def summary(self) -> dict[str, Any]:
        """The last record, and what concerns the whole run."""
        seconds = sum(t["seconds"] for t in self.timings)
        images = sum(t["seconds"] * t["img_per_s"] for t in self.timings)
        return {
            "finished": self.finished,
            **(self.records[-1] if self.records else {}),
            "best_epoch": self.best_epoch or None,
            "img_per_s": round(images / seconds, 2) if seconds else None,
            "seconds": round(seconds, 1),
            "cpu_seconds": round(sum(t.get("cpu_seconds", 0.0) for t in self.timings), 1),
        }


def resident_memory() -> float | None:
    """MB of this process that are in memory now; None where the system does not say."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except OSError:
        return None
    return round(pages * os.sysconf("SC_PAGE_SIZE") / 2**20, 1)


def score_of(train: Tally, val: Tally | None, by_loss: bool) -> list[float]:
    """How good an epoch was, larger is better: by right answers in the validation and then its
    loss, by the loss alone, or by the training loss where there is no validation.
    """
    if val is None:
        return [-train.mean_loss]
    return [-val.mean_loss] if by_loss else [val.correct, -val.mean_loss]


def epoch_record(
    epoch: int,
    step: int,
    learning_rate: float,
    train: Tally,
    val: Tally | None = None,
    test: Tally | None = None,
    views: Tally | None = None,
    grad_norm: float | None = None,
) -> dict[str, Any]:
    """One line of metrics.jsonl; `views` are the test images, several views each, and `grad_norm`
    is the mean over the steps of the epoch, before clipping.
    """
    record: dict[str, Any] = dict.fromkeys(METRICS)
    record.update(epoch=epoch, step=step, learning_rate=learning_rate, grad_norm=grad_norm)
    for name, tally in (("train", train), ("val", val), ("test", test)):
        if tally is not None:
            record[f"{name}_loss"], record[f"{name}_accuracy"] = tally.loss, tally.accuracy
    if views is not None:
        record["test_accuracy_views"] = views.accuracy
    return record


def to_json(record: Mapping[str, Any]) -> str:
    """One line of valid JSON: NaN and infinities, which JSON does not know, become null.

    >>> to_json({"loss": float("nan"), "epoch": 1})
    '{"loss": null, "epoch": 1}'
    """
    return json.dumps({key: _finite(value) for key, value in record.items()}, allow_nan=False)


def _finite(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value


def append_line(path: Path, record: Mapping[str, Any]) -> None:
    """Add one line to a .jsonl file."""
    with open(path, "a", encoding="utf-8") as file:
        file.write(to_json(record) + "\n")


def write_lines(path: Path, records: Iterable[Mapping[str, Any]]) -> None:
    """Replace a .jsonl file in one move: a reader sees the old lines or the new ones."""
    replace_text(path, "".join(to_json(record) + "\n" for record in records))


def replace_text(path: Path, text: str) -> None:
    """Write a text file to the side, sync it and rename it into place."""
    beside = path.with_name(path.name + ".new")
    try:
        with open(beside, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(beside, path)
    except OSError:
        beside.unlink(missing_ok=True)
        raise


def read_lines(path: Path) -> list[dict[str, Any]]:
    """The records of a .jsonl file; a last line cut short (the machine went down) is left out."""
    records = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            records.append(json.loads(line))
        except json.JSONDecodeError:
            break
    return records
