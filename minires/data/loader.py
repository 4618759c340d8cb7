"""Batches of a data set, prepared ahead of time by threads.

What a batch holds is a pure function of (seed, epoch, batch number): the order is a Philox
permutation of the epoch, and an image's augmentation is a draw of (seed, epoch, index of the
image). So results do not depend on the number of threads, and a run resumes in the middle of an
epoch. The threads call serial kernels that release the GIL.

Thread t of T prepares batches t, t + T, t + 2T, … into a short queue of its own, and the consumer
takes from the queues in turn: order needs no sorting, and the queues' bound limits how far anyone
runs ahead.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator
from contextvars import copy_context
from dataclasses import asdict
from typing import Any

import numpy as np

from ..errors import DataError
from ..kernels.augment import augment_batch, gather_batch, pixel_table
from ..kernels.random import Key, permutation
from .dataset import Dataset
from .transforms import Augment, normalisation

__all__ = ["Loader"]

ORDER_STREAM, AUGMENT_STREAM = 0xDA7A_0002, 0xDA7A_0003
AHEAD = 2  # batches a thread may prepare before anyone takes them

Batch = tuple[np.ndarray, np.ndarray]


class Loader:
    """Iterate over batches: (images float (b, h, w, c), labels int64 (b,)).

    Images are normalised by `mean` and `std` (c,), by default those of the data set (see
    `normalisation`). `augment` is an `Augment` or None. `threads=0` prepares batches in the caller.
    `len()` is the number of batches of a whole epoch. Raises DataError when there is no batch to
    give.

    >>> black = np.zeros((10, 8, 8, 3), np.uint8)
    >>> pictures = Dataset(black, np.arange(10), list("abcdefghij"), "black")
    >>> loader = Loader(pictures, batch_size=4, augment=Augment(crop=2))
    >>> [(images.shape, labels.tolist()) for images, labels in loader]
    [((4, 8, 8, 3), [0, 1, 2, 3]), ((4, 8, 8, 3), [4, 5, 6, 7]), ((2, 8, 8, 3), [8, 9])]
    """

    def __init__(
        self,
        dataset: Dataset,
        batch_size: int,
        *,
        shuffle: bool = False,
        augment: Augment | None = None,
        mean: Any = None,
        std: Any = None,
        seed: int = 0,
        drop_last: bool = False,
        threads: int = 1,
        dtype: Any = np.float32,
    ) -> None:
        if batch_size < 1:
            raise ValueError(f"Loader: batch_size is {batch_size} but must be at least 1")
        if threads < 0:
            raise ValueError(f"Loader: threads is {threads} but must be at least 0")
        if (mean is None) != (std is None):
            raise ValueError("Loader: mean and std go together; give both or neither")
        if not len(dataset):
            raise DataError(
                f"Loader: the data set {dataset.name} is empty; it must hold at least 1 image"
            )
        if drop_last and len(dataset) < batch_size:
            raise DataError(
                f"Loader: drop_last leaves no batch: batch_size is {batch_size} but must be at "
                f"most {len(dataset)}, the size of {dataset.name}"
            )
        self.dataset, self.batch_size = dataset, batch_size
        self.shuffle, self.augment, self.drop_last = shuffle, augment, drop_last
        self.seed, self.threads = seed, threads
        self.epoch, self.start_batch = 0, 0
        if mean is None:
            mean, std = normalisation("dataset", dataset)
        channels = dataset.images.shape[3:]
        if np.shape(mean) != channels or np.shape(std) != channels:
            raise ValueError(
                f"Loader: mean and std must be {channels}, got {np.shape(mean)}, {np.shape(std)}"
            )
        self.mean, self.std = np.array(mean, np.float32), np.array(std, np.float32)
        if not (np.isfinite(self.mean).all() and (self.std > 0).all()):
            raise ValueError(f"Loader: mean is {mean} and std {std}; std must be above 0")
        self._table = pixel_table(self.mean, self.std, dtype)

    def __len__(self) -> int:
        whole, rest = divmod(len(self.dataset), self.batch_size)
        return whole + (rest > 0 and not self.drop_last)

    def set_epoch(self, epoch: int, start_batch: int = 0) -> None:
        """Choose the epoch that iterations give from now on, and their first batch (to resume)."""
        if epoch < 0:
            raise ValueError(f"Loader.set_epoch: epoch is {epoch} but must be at least 0")
        if not 0 <= start_batch <= len(self):
            raise ValueError(
                f"Loader.set_epoch: start_batch is {start_batch} but must be 0 to {len(self)}"
            )
        self.epoch, self.start_batch = epoch, start_batch

    def order(self, epoch: int) -> np.ndarray:
        """The indices of the images, int64 (n,), in the order of an epoch."""
        if self.shuffle:
            return permutation(Key(self.seed, ORDER_STREAM, epoch), len(self.dataset))
        return np.arange(len(self.dataset))

    def batch(self, indices: np.ndarray, epoch: int) -> Batch:
        """The images and labels at these indices, as `epoch` shows them."""
        images, labels = self.dataset.images, self.dataset.labels[indices]
        if not self.augment:
            return gather_batch(images, indices, self._table), labels
        how: dict[str, Any] = asdict(self.augment)
        how["pad"] = how.pop("crop")
        how |= {"seed": self.seed, "stream": AUGMENT_STREAM, "step": epoch}
        return augment_batch(images, indices, self._table, **how), labels

    def __iter__(self) -> Iterator[Batch]:
        epoch, order, size = self.epoch, self.order(self.epoch), self.batch_size
        plan = [order[i * size : (i + 1) * size] for i in range(self.start_batch, len(self))]
        if self.threads == 0:
            return (self.batch(indices, epoch) for indices in plan)
        return _prefetch(self, plan, epoch, min(self.threads, len(plan)))


def _prefetch(loader: Loader, plan: list[np.ndarray], epoch: int, threads: int) -> Iterator[Batch]:
    """The batches of `plan` in order. The threads end with the iteration, even an abandoned one."""
    queues: list[queue.Queue] = [queue.Queue(AHEAD) for _ in range(threads)]
    stop = threading.Event()
    workers = []
    for t, ready in enumerate(queues):
        # in a copy of the caller's context, so that `reference()` and `ran()` reach the threads
        work = _work, loader, plan[t::threads], epoch, ready, stop
        name = f"minires-loader-{t}"
        workers.append(
            threading.Thread(target=copy_context().run, args=work, name=name, daemon=True)
        )
    try:
        for worker in workers:
            worker.start()
        for i in range(len(plan)):
            yield _taken(queues[i % threads])
    finally:  # the end, an error, or the caller let go of the iterator
        stop.set()
        if threading.current_thread() not in workers:  # the garbage collector runs in any thread
            for worker in workers:
                if worker.ident is not None:
                    worker.join()


def _taken(ready: queue.Queue) -> Batch:
    item = ready.get()
    if isinstance(item, BaseException):
        raise item
    return item


def _work(
    loader: Loader, plan: list[np.ndarray], epoch: int, ready: queue.Queue, stop: threading.Event
) -> None:
    """Put batches into `ready`; an exception takes the place of its batch and ends the thread."""
    for indices in plan:
        if stop.is_set():
            return
        try:
            item: Any = loader.batch(indices, epoch)
        except BaseException as error:  # the consumer raises it
            item = error
        _offer(item, ready, stop)
        if isinstance(item, BaseException):
            return
        del item  # the consumer's alone now: its memory goes back to the pool when it is done


def _offer(item: Any, ready: queue.Queue, stop: threading.Event) -> None:
    while not stop.is_set():
        try:
            return ready.put(item, timeout=0.1)
        except queue.Full:
            continue
