"""What a person sees of a run and how they stop it: progress bar, lines an epoch, Ctrl-C."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

from ..kernels.memory import threads

__all__ = [
    "Interrupted",
    "StopFlag",
    "Watch",
    "catch_signals",
    "describe",
    "introduction",
    "skipped_lines",
]

LISTED = 10  # unreadable pictures named at the end of a run


class Interrupted(KeyboardInterrupt):
    """The run was stopped by a signal, after it was saved; the message says how to go on."""


class StopFlag:
    """Set by the first signal; the trainer looks at it between two steps."""

    def __init__(self) -> None:
        self.signal: int | None = None

    def __bool__(self) -> bool:
        return self.signal is not None


@contextmanager
def catch_signals() -> Iterator[StopFlag]:
    """Turn the first SIGINT or SIGTERM into a flag; a second one raises KeyboardInterrupt at once.

    Outside the main thread, where Python forbids handlers, the flag is never set.
    """
    flag = StopFlag()

    def handle(number: int, frame: Any) -> None:
        if flag:
            raise KeyboardInterrupt
        flag.signal = number

    if threading.current_thread() is not threading.main_thread():
        yield flag
        return
    before = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield flag
    finally:
        for number, handler in before.items():
            signal.signal(number, handler if handler is not None else signal.SIG_DFL)


class Watch:
    """Where a trainer reports: lines to `out`, a bar to stderr.

    `quiet` leaves out the bar and the lines an epoch. Where stderr is no terminal the bar is drawn
    every ten seconds. every: seconds between looks at a loss that a GPU adds up; each waits for it.
    """

    def __init__(self, out: TextIO | None = None, quiet: bool = False, every: float = 5.0) -> None:
        self.out, self.quiet, self.every = out, quiet, every
        self._bar: Any = None

    def say(self, text: str) -> None:
        """Print one line, above the bar when there is one."""
        if self.quiet:
            return
        stream = self.out or sys.stdout
        if self._bar is not None:
            self._bar.clear()
        print(text, file=stream, flush=True)

    @contextmanager
    def bar(
        self, title: str, total: int | None, done: int = 0, *, delay: float = 0.0
    ) -> Iterator[Any]:
        """A bar over `total` images: share done, time left, images a second. Call `.update(count)`
        on it.
        """
        from tqdm import tqdm

        terminal = sys.stderr.isatty()
        self._bar = tqdm(
            desc=title,
            total=total,
            initial=done,
            delay=delay,
            disable=self.quiet,
            unit="img",
            leave=False,
            file=sys.stderr,
            dynamic_ncols=terminal,
            mininterval=0.2 if terminal else 10.0,
        )
        try:
            yield self._bar
        finally:
            self._bar.close()
            self._bar = None


def introduction(config: Any, model: Any, sets: Any, device: str) -> str:
    """What is about to be trained, on what and where."""
    splits = {"training": sets.train, "validation": sets.val, "test": sets.test}
    images = ", ".join(f"{len(some):,} {name}" for name, some in splits.items() if some)
    ignored = getattr(sets.train, "ignored", 0)
    images += f" images ({ignored} hidden or foreign files ignored)" if ignored else " images"
    size = sum(p.size for p in model.parameters())
    if device == "cpu":
        device = "1 thread" if threads() == 1 else f"{threads()} threads"
    return f"{config.model} ({size:,} parameters) on {config.dataset}: {images}; {device}"


def skipped_lines(skipped: Mapping[str, str], where: Path) -> Iterator[str]:
    """The pictures that could not be read, the first of them by name."""
    if skipped:
        yield f"pictures that cannot be read: {len(skipped)}, all of them in {where}"
    for path in sorted(skipped)[:LISTED]:
        yield f"  {path}: {skipped[path]}"


def describe(
    record: dict[str, Any], epochs: int, img_per_s: float, seconds: float | None = None
) -> str:
    """The line an epoch; `seconds`, how long it took, tells the time left.

    >>> record = {
    ...     "epoch": 3,
    ...     "train_loss": 0.51,
    ...     "train_accuracy": 0.81,
    ...     "val_loss": 0.6,
    ...     "val_accuracy": 0.78,
    ...     "grad_norm": 1.234,
    ... }
    >>> record |= {"test_loss": None, "test_accuracy": None, "learning_rate": 0.1}
    >>> describe(record, 10, 251.4, 60.0)
    'epoch 3/10  train 0.510 81.0 %  val 0.600 78.0 %  lr 0.1  grad 1.23  251 img/s  7 min left'
    """
    parts = [f"epoch {record['epoch']}/{epochs}"]
    for split in ("train", "val", "test"):
        loss, accuracy = record[f"{split}_loss"], record[f"{split}_accuracy"]
        if loss is not None:
            parts.append(f"{split} {loss:.3f} {100 * accuracy:.1f} %")
    parts += [f"lr {record['learning_rate']:.3g}", f"grad {record['grad_norm']:.3g}"]
    if record.get("dead_relus") is not None:
        parts.append(f"dead {100 * record['dead_relus']:.1f} %")
    parts.append(f"{img_per_s:.0f} img/s")
    left = 0.0 if seconds is None else seconds * (epochs - record["epoch"])
    if left:
        parts.append(f"{_duration(left)} left")
    return "  ".join(parts)


def _duration(seconds: float) -> str:
    """Seconds, minutes, or hours and minutes."""
    minutes = round(seconds / 60)
    if seconds < 60:
        return f"{seconds:.0f} s"
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02} min"
