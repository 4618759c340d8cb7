"""Time on the GPU, by its own clock."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from typing import Any

import numpy as np

from ..backend import array_module, to_device

__all__ = ["MOST", "ROUNDS", "cupy_module", "seconds"]

ROUNDS = 7
TURN = 0.05  # seconds a round, where `most` allows
MOST = 1000  # calls a round


def cupy_module() -> Any:
    """CuPy; raises RuntimeError, which says what is missing, on a machine without a GPU."""
    return array_module(to_device(np.zeros(1), "cuda"))


def seconds(call: Callable[[], Any], most: int = MOST) -> float:
    """Seconds of one call: the median of seven rounds (one where `most` is 1) of up to `most`
    calls, between two events that the GPU records.

    Two calls before compile what is missing and fill the memory pool. The host does not wait within
    a round, so launching is part of the time only where the GPU is faster than that.
    """
    cuda = cupy_module().cuda
    start, end = cuda.Event(), cuda.Event()

    def timed(count: int) -> float:
        start.record()
        for _ in range(count):
            call()
        end.record()
        end.synchronize()
        return cuda.get_elapsed_time(start, end) / 1e3 / count

    timed(2)
    count = max(1, min(most, int(TURN / max(timed(1), 1e-9))))
    return statistics.median(timed(count) for _ in range(ROUNDS if most > 1 else 1))
