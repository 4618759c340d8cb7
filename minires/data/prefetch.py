"""Batches on their way to a GPU while it computes on those before.

A copy from pinned memory on a stream of its own neither waits nor makes the GPU wait. There are two
places, each with pinned memory, memory of the GPU, and two events: when its batch has arrived, and
when nobody computes on it any more.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from ..backend import device_of, resolve_device

__all__ = ["prefetch"]


def prefetch(batches: Iterable[tuple[Any, ...]], device: str) -> Iterator[tuple[Any, ...]]:
    """The batches, tuples of arrays, on `device`; on the CPU just as they are.

    On a GPU an array is overwritten once the next batch was asked for and what had been queued by
    then is done.

    >>> [x.tolist() for (x,) in prefetch([(np.zeros(2),), (np.ones(1),)], "cpu")]
    [[0.0, 0.0], [1.0]]
    """
    if resolve_device(device) == "cpu":
        yield from batches
        return
    import cupy  # type: ignore[import-not-found]  # takes a second, and most machines have no GPU

    stream = cupy.cuda.Stream(non_blocking=True)
    places, given = [_Place(cupy, stream), _Place(cupy, stream)], iter(batches)
    coming = None
    try:
        for number, batch in enumerate(given):
            place = places[number % 2]
            place.send(batch)
            if coming is not None:
                yield coming.arrived()
                coming.leave()
            coming = place
        if coming is not None:
            yield coming.arrived()
    finally:
        stream.synchronize()  # the pinned memory may go now
        close: Any = getattr(given, "close", None)
        if close is not None:
            close()


class _Place:
    """Memory for one batch on both sides."""

    def __init__(self, cupy: Any, stream: Any) -> None:
        self.cupy, self.stream = cupy, stream
        self.sent, self.left = (cupy.cuda.Event(disable_timing=True) for _ in range(2))
        self.pinned: list[Any] = []
        self.there: list[Any] = []
        self.arrays: tuple[Any, ...] = ()

    def send(self, batch: tuple[Any, ...]) -> None:
        """Begin to copy, once nobody computes on what is here."""
        if not self.sent.done:  # the host is two batches ahead
            self.sent.synchronize()
        self.stream.wait_event(self.left)
        self.arrays = tuple(self._copied(i, array) for i, array in enumerate(batch))
        self.sent.record(self.stream)

    def _copied(self, i: int, array: Any) -> Any:
        if not array.size or device_of(array) != "cpu":
            return self.cupy.asarray(array)
        while i >= len(self.pinned) or self.there[i].size < array.nbytes:
            del self.pinned[i:], self.there[i:]
            self.pinned.append(self.cupy.cuda.alloc_pinned_memory(array.nbytes))
            self.there.append(self.cupy.empty(array.nbytes, np.uint8))
        pinned = np.frombuffer(self.pinned[i], array.dtype, array.size).reshape(array.shape)
        np.copyto(pinned, array)
        self.there[i].data.copy_from_host_async(self.pinned[i].ptr, array.nbytes, self.stream)
        return self.there[i][: array.nbytes].view(array.dtype).reshape(array.shape)

    def arrived(self) -> tuple[Any, ...]:
        """The batch, for work that is queued from now on."""
        self.cupy.cuda.get_current_stream().wait_event(self.sent)
        return self.arrays

    def leave(self) -> None:
        """Whatever computes on the batch has been queued."""
        self.left.record(self.cupy.cuda.get_current_stream())
