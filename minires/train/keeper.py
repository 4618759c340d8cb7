"""What a run leaves in its folder while it goes, and how it comes back from there.

The state of a run is that of its `TrainStep`, its `Lookahead` and a `Position`; a checkpoint stores
exactly these, so a resumed run cannot tell that it was ever stopped.
"""

from __future__ import annotations

import dataclasses
import gc
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from .. import weights
from ..errors import DataError
from .checkpoint import has_checkpoint, load_checkpoint, save_checkpoint
from .events import EVENTS, Events
from .folder import Card, RunFolder
from .lookahead import Lookahead
from .metrics import Position, append_line, replace_text, write_lines
from .plots import draw_curves
from .step import TrainStep
from .watch import Watch

__all__ = ["Keeper"]

DRAW_EVERY = 5.0  # seconds between drawings of curves.png; the end of a run always draws


class Keeper:
    """Writes a run's files, and reads them back.

    card: what the weight files say about themselves; images: how many the run trains on, by which
    a resumed one knows that its data is the same; save_every: seconds between checkpoints inside an
    epoch; tensorboard: whether to write event files. Raises ImportError when they need a package.
    """

    def __init__(
        self,
        folder: RunFolder,
        step: TrainStep,
        card: Card,
        images: int,
        watch: Watch,
        lookahead: Lookahead | None = None,
        save_every: float = 300.0,
        tensorboard: bool = False,
    ) -> None:
        self.save_every = save_every
        self.events = Events(folder.path / EVENTS) if tensorboard else None
        self.folder, self.step, self.card, self.lookahead = folder, step, card, lookahead
        self.images, self.watch = images, watch
        self._saved = self._drawn = 0.0

    def begin(self, at: Position) -> None:
        """Start the clocks of `checkpoint_now_and_then` and `draw`, and the event files with the
        epochs that there are.
        """
        self._saved, self._drawn = time.monotonic(), 0.0
        if self.events is not None:
            self.events.begin(at.records + at.timings)

    def save_weights(self, at: Position, best: bool = False) -> None:
        """Write the weights as they are now as last, or as best."""
        path = self.folder.best if best else self.folder.last
        more = {"epoch": at.epoch, "step": at.step}
        self.folder.save_weights(path, self.step.model, self.card, **more)

    @contextmanager
    def best_weights(self) -> Iterator[None]:
        """Go back to the best weights, for good unless an error or a signal ends the block."""
        before = self.step.model.state_dict()
        file = weights.load_file(self.folder.best)
        weights.load(self.step.model, self.folder.best)
        try:
            yield
        except BaseException:
            self.step.model.load_state_dict(before)
            raise
        weights.save_safetensors(self.folder.last, dict(file.arrays), file.metadata)

    def checkpoint(self, at: Position) -> None:
        """Write what resuming needs."""
        state = {
            "position": dataclasses.asdict(at),
            "images": self.images,
            "step": self.step.state_dict(),
        }
        if self.lookahead is not None:
            state["lookahead"] = self.lookahead.state_dict()
        save_checkpoint(self.folder.path, state)
        self._saved = time.monotonic()

    def checkpoint_now_and_then(self, at: Position, look: Callable[[], None]) -> None:
        """The same, when the last one is long ago; `look` brings `at` up to date."""
        if time.monotonic() - self._saved > self.save_every:
            look()
            self.checkpoint(at)

    def restore(self) -> Position | None:
        """Go back to the checkpoint and its lines an epoch; None if there is none."""
        if not has_checkpoint(self.folder.path):
            return None
        state = load_checkpoint(self.folder.path, self.watch.say)
        if state["images"] != self.images:
            count = f"{self.images} training images, the run had {state['images']}"
            raise DataError(f"--resume {self.folder.path}: {count}: not the same data")
        self.step.load_state_dict(state["step"])
        if self.lookahead is not None:
            self.lookahead.load_state_dict(state["lookahead"])
        at = Position.from_dict(state["position"])
        write_lines(self.folder.metrics, at.records)
        write_lines(self.folder.timing, at.timings)
        return at

    def add_lines(self, record: dict[str, Any], timing: dict[str, Any]) -> None:
        """Add an epoch to metrics.jsonl and timing.jsonl."""
        append_line(self.folder.metrics, record)
        append_line(self.folder.timing, timing)
        if self.events is not None:
            self.events.add(record)
            self.events.add(timing)

    def close_events(self) -> None:
        """Close them, if they are open."""
        if self.events is not None:
            self.events.close()
            self.events = None

    def add_skipped(self, skipped: dict[str, str]) -> None:
        """Keep the list of pictures that could not be read, with those of before a resumption."""
        if not skipped:
            return
        file = self.folder.skipped
        known = file.read_text(encoding="utf-8").splitlines() if file.exists() else []
        lines = {*known, *(f"{path}: {reason}" for path, reason in skipped.items())}
        replace_text(file, "".join(f"{line}\n" for line in sorted(lines)))

    def draw(self, at: Position, force: bool = False) -> None:
        """Draw curves.png, after every epoch that took a few seconds, or when forced."""
        if not force and time.monotonic() - self._drawn < DRAW_EVERY:
            return
        try:
            draw_curves(self.folder.curves, at.records, title=self.folder.path.name)
        except ImportError as error:
            self.watch.say(f"no curves.png: {error}")
        gc.collect()  # a figure refers to itself: 1 to 2 MB that would stay for some epochs
        self._drawn = time.monotonic()
