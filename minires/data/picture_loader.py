"""Batches of picture files, decoded ahead of time by worker processes.

What a batch holds is a pure function of (seed, epoch, batch number) and of the files: the order is
a Philox permutation of the epoch, a picture's crop and colours are draws of (seed, epoch, index).
In training, a picture that cannot be read is replaced by the next one of its class, so that a
batch keeps its size; in measuring it is left out. Neither depends on the number of workers, on
their order or on what was found before.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import chain, islice
from typing import Any

import numpy as np

from ..errors import DataError, PictureError
from ..kernels.augment import gather_batch, pixel_table
from ..kernels.random import Key, permutation
from .picture_reader import PictureReader
from .pictures import Pictures, printable
from .task import Task, centre_share
from .transforms import normalisation
from .workers import InProcess, Workers

__all__ = ["PictureAugment", "PictureLoader"]

ORDER_STREAM, DRAW_STREAM = 0xDA7A_0002, 0xDA7A_0006
AHEAD = 2  # batches under way while one is used
STAND_INS = 2  # pictures sent along with a task, in case that it cannot be read

Batch = tuple[np.ndarray, np.ndarray]


@dataclass(frozen=True)
class PictureAugment:
    """Random crops of `area` to 1 of a picture, resized; random flips; brightness, contrast and
    saturation changed by up to the share `jitter`.

    The default is the usual one for ImageNet (Szegedy et al. 2015, arXiv:1409.4842), without
    jitter. Raises ValueError for what is out of range.

    >>> PictureAugment(jitter=0.4)
    PictureAugment(area=0.08, flip=True, jitter=0.4)
    """

    area: float = 0.08
    flip: bool = True
    jitter: float = 0.0

    def __post_init__(self) -> None:
        if not 0 < self.area <= 1:
            raise ValueError(f"PictureAugment: area is {self.area} but must be above 0 and up to 1")
        if not 0 <= self.jitter <= 1:
            raise ValueError(f"PictureAugment: jitter is {self.jitter} but must be 0 to 1")


class PictureLoader:
    """Iterate over batches: (images float (b, size, size, 3), labels int64 (b,)).

    With `augment` as it says, without it the central square (see `centre_share`). Images are
    normalised by `mean` and `std` (3,), by default ImageNet's. A picture that cannot be read is
    left out, or with `stand_ins` replaced by the next one of its class. Without a `reader`,
    pictures are decoded in the caller; one reader serves one iteration at a time. `len()` is the
    number of batches of a whole epoch. Raises DataError when there is no batch to give,
    PictureError when no picture of a class can be read.
    """

    def __init__(
        self,
        pictures: Pictures,
        batch_size: int,
        *,
        size: int = 224,
        shuffle: bool = False,
        augment: PictureAugment | None = None,
        mean: Any = None,
        std: Any = None,
        seed: int = 0,
        drop_last: bool = False,
        stand_ins: bool = False,
        reader: PictureReader | None = None,
        dtype: Any = np.float32,
    ) -> None:
        if batch_size < 1 or size < 1:
            raise ValueError(
                f"PictureLoader: batch_size is {batch_size} and size {size} but must be at least 1"
            )
        if len(pictures) < (batch_size if drop_last else 1):
            raise DataError(
                f"PictureLoader: no batch of {batch_size} in {len(pictures)} pictures of "
                f"{printable(str(pictures.root))}"
            )
        self.dataset, self.batch_size, self.size = pictures, batch_size, size
        self.shuffle, self.augment, self.drop_last = shuffle, augment, drop_last
        self.seed, self.stand_ins, self.reader = seed, stand_ins, reader or PictureReader()
        self.epoch, self.start_batch = 0, 0
        if mean is None or std is None:
            mean, std = normalisation("imagenet")
        self._table = pixel_table(mean, std, dtype)
        by_class = [np.flatnonzero(pictures.labels == k) for k in range(len(pictures.classes))]
        self._members = by_class
        self._place = np.empty(len(pictures), np.int64)  # among the members of its class
        for members in by_class:
            self._place[members] = np.arange(len(members))

    def __len__(self) -> int:
        whole, rest = divmod(len(self.dataset), self.batch_size)
        return whole + (rest > 0 and not self.drop_last)

    @property
    def skipped(self) -> dict[str, str]:
        """{file: what is wrong with it}, of all that the reader could not read so far."""
        return {file: f"{file}: {reason}" for file, reason in self.reader.skipped.items()}

    def set_epoch(self, epoch: int, start_batch: int = 0) -> None:
        """Choose the epoch that iterations give from now on, and their first batch (to resume)."""
        if epoch < 0 or not 0 <= start_batch <= len(self):
            raise ValueError(
                f"PictureLoader.set_epoch: epoch is {epoch} and start_batch {start_batch} but "
                f"must be at least 0, and 0 to {len(self)}"
            )
        self.epoch, self.start_batch = epoch, start_batch

    def order(self, epoch: int) -> np.ndarray:
        """The indices of the pictures, int64 (n,), in the order of an epoch."""
        if self.shuffle:
            return permutation(Key(self.seed, ORDER_STREAM, epoch), len(self.dataset))
        return np.arange(len(self.dataset))

    def __iter__(self) -> Iterator[Batch]:
        order, size = self.order(self.epoch), self.batch_size
        plan = [order[i * size : (i + 1) * size] for i in range(self.start_batch, len(self))]
        return self._batches(plan, self.epoch)

    def _batches(self, plan: list[np.ndarray], epoch: int) -> Iterator[Batch]:
        engine, iteration = self.reader.begin((AHEAD + 1) * self.batch_size, self.size)
        waiting: deque[list[_Wanted]] = deque()
        for number in range(len(plan) + AHEAD):
            self.reader.check_current(iteration)
            if number < len(plan):
                first = number % (AHEAD + 1) * self.batch_size
                waiting.append([])
                for slot, i in enumerate(plan[number].tolist(), first):
                    wanted = _Wanted(slot, i, epoch, self._candidates(i))
                    self._ask(engine, wanted)
                    waiting[-1].append(wanted)
            if number >= AHEAD:
                kept = [w for w in waiting.popleft() if self._arrived(engine, w)]
                if kept:
                    slots = np.array([w.slot for w in kept])
                    labels = self.dataset.labels[[w.index for w in kept]]
                    yield gather_batch(engine.images, slots, self._table), labels

    def _candidates(self, index: int) -> Iterator[int]:
        """Picture `index`, then those that may stand in for it; none that is known to be bad."""
        members = self._members[self.dataset.labels[index]]
        count = len(members) if self.stand_ins and self.reader.on_bad == "skip" else 1
        for k in range(count):
            candidate = int(members[(self._place[index] + k) % len(members)])
            if printable(self.dataset.path(candidate)) not in self.reader.skipped:
                yield candidate

    def _ask(self, engine: InProcess | Workers, wanted: _Wanted) -> None:
        """Submit the picture wanted, with a few more in case that it cannot be read."""
        pictures, augment = self.dataset, self.augment
        wanted.asked = list(islice(wanted.candidates, 1 + STAND_INS))
        if not wanted.asked:
            return
        files = [pictures.path(i) for i in wanted.asked]
        centre, keep = centre_share(self.size), self.reader.may_copy
        task = Task(wanted.slot, files, self.size, centre=centre, keep=keep)
        if augment:
            draw = self.seed, DRAW_STREAM, wanted.epoch, wanted.index
            task = task._replace(draw=draw, **vars(augment))
        engine.submit(task, int(pictures.sizes[wanted.asked[0]]))

    def _arrived(self, engine: InProcess | Workers, wanted: _Wanted) -> bool:
        """Wait for the picture wanted or its stand-in; False when it has to be left out."""
        while wanted.asked:
            outcome = engine.wait(wanted.slot)
            self.reader.note_copy(outcome.copied)
            for index, reason in zip(wanted.asked, outcome.reasons):
                self.reader.note(self.dataset, index, reason)
            if outcome.done:
                return True
            rest = wanted.asked[len(outcome.reasons) :]
            wanted.candidates = chain(rest, wanted.candidates)
            self._ask(engine, wanted)
        if self.stand_ins:
            label = self.dataset.labels[wanted.index]
            name = printable(self.dataset.classes[label])
            count = len(self._members[label])
            raise PictureError(f"class '{name}': none of its {count} pictures can be read")
        return False


@dataclass
class _Wanted:
    """A picture of a batch that is under way: where it goes, and which are still to be tried."""

    slot: int
    index: int
    epoch: int
    candidates: Iterator[int]
    asked: list[int] = field(default_factory=list)
