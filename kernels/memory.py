"""The buffer pool of the kernels' outputs and workspaces, and their number of threads.

Fresh memory is slow: the kernel clears every page at first touch, which for a training step costs
as much as its BatchNorms. So a block that is no longer in use is kept and handed out again. What
makes that safe: the base of a pooled array is a `_Lease`, every view keeps it alive, and only its
collection returns the block. Nobody frees by hand, so nothing that a caller still holds is ever
overwritten.
"""

from __future__ import annotations

import math
import os
import threading
from collections import defaultdict, deque
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numba
import numpy as np
from numba.np.ufunc import parallel as numba_parallel

from .dispatch import array_module

__all__ = ["Pool", "empty", "pool", "set_threads", "threads", "workspace", "zeros"]

SMALLEST = 1 << 15  # bytes; below this, malloc recycles memory by itself
FORGET = 0.95  # what remains of the memory of how much was in use, at each block not found
ALIGNMENT = 64  # bytes: a cache line, and one AVX-512 register
MOST_THREADS = 512  # more are a slip of the keyboard

# A thread that waits in a busy loop (OpenMP's default) steals the core from other work; one that
# sleeps at once wakes up late. So: spin for some 0.1 ms. Read when Numba starts its threads.
if "OMP_WAIT_POLICY" not in os.environ:
    os.environ["OMP_WAIT_POLICY"] = "passive"
    os.environ.setdefault("GOMP_SPINCOUNT", "10000")
# starting a parallel loop costs 5, 7 and 39 microseconds; the first that there is serves
if "NUMBA_THREADING_LAYER_PRIORITY" not in os.environ:
    numba.config.THREADING_LAYER_PRIORITY = ["omp", "tbb", "workqueue"]  # type: ignore[attr-defined]


class _Lease:
    """Owns one block while any array uses it; `__del__` gives it back to the pool."""

    __slots__ = ("__array_interface__", "_block", "_pool")

    def __init__(self, pool: Pool, block: np.ndarray, shape: tuple[int, ...], dtype: np.dtype):
        self._pool, self._block = pool, block
        self.__array_interface__ = {
            "shape": shape,
            "typestr": dtype.str,
            "data": (block.ctypes.data, False),
            "version": 3,
        }

    def __del__(self) -> None:
        self._pool.give_back(self._block)


class Pool:
    """Recycles aligned blocks of memory by size class (eight classes an octave).

    >>> pool = Pool()
    >>> a = pool.empty((256, 256), np.float32)
    >>> address = a.ctypes.data
    >>> del a
    >>> pool.empty((256, 255), np.float32).ctypes.data == address
    True
    """

    def __init__(self) -> None:
        # deque.append and deque.pop are atomic: leases may end in any thread, also inside a
        # collection
        self._idle: defaultdict[int, deque[np.ndarray]] = defaultdict(deque)
        self._lock = threading.RLock()  # re-entrant: a lease may end inside a locked line
        self.poison = bool(os.environ.get("MINIRES_POISON"))
        self.fresh = 0  # blocks ever taken from the system
        self.in_use = 0  # bytes
        self.most = 0.0  # bytes: the most in use at a time, slowly forgotten

    def empty(self, shape: tuple[int, ...], dtype: Any) -> np.ndarray:
        """An uninitialised C-contiguous array, filled with NaN when `poison` is set."""
        dtype = np.dtype(dtype)
        size = math.prod(shape) * dtype.itemsize
        if size < SMALLEST:
            array = np.empty(shape, dtype)
        else:
            array = np.asarray(_Lease(self, self._take(_size_class(size)), tuple(shape), dtype))
        if self.poison:
            array.fill(np.nan if dtype.kind == "f" else 113)
        return array

    def _take(self, size: int) -> np.ndarray:
        with self._lock:
            self.in_use += size
            self.most = max(self.most, self.in_use)
        try:
            return self._idle[size].pop()
        except IndexError:
            # a step repeated finds all its blocks; once shapes change for good, let the old ones go
            self.most = max(FORGET * self.most, self.in_use)
            if self.idle > 2 * self.most:
                self.trim()
            self.fresh += 1
            raw = np.empty(size + ALIGNMENT, np.uint8)
            start = -raw.ctypes.data % ALIGNMENT
            return raw[start : start + size]

    def give_back(self, block: np.ndarray) -> None:
        """Called by a lease at its end; never by hand."""
        with self._lock:
            self.in_use -= block.size
        self._idle[block.size].append(block)

    @property
    def idle(self) -> int:
        """Bytes kept for reuse."""
        return sum(size * len(blocks) for size, blocks in list(self._idle.items()))

    def trim(self) -> None:
        """Return the idle blocks to the system."""
        self._idle.clear()
        self.most = self.in_use


def _size_class(size: int) -> int:
    step = 1 << max(size.bit_length() - 4, 12)
    return -(-size // step) * step


pool = Pool()


def empty(shape: tuple[int, ...], dtype: Any, like: Any = None) -> Any:
    """An uninitialised array from the pool, on the device of `like` (the CPU without one)."""
    xp = np if like is None else array_module(like)
    return pool.empty(shape, dtype) if xp is np else xp.empty(shape, dtype)


def zeros(shape: tuple[int, ...], dtype: Any, like: Any = None) -> Any:
    """Like `empty`, filled with zeros."""
    array = empty(shape, dtype, like)
    array.fill(0)
    return array


@contextmanager
def workspace(shape: tuple[int, ...], dtype: Any, like: Any = None) -> Iterator[Any]:
    """A scratch array for one kernel call: `with workspace((48, 576), x.dtype) as columns:`."""
    array = empty(shape, dtype, like)
    try:
        yield array
    finally:
        del array


def set_threads(count: int) -> None:
    """Set how many threads the kernels use.

    More than there are cores, only before the first kernel runs: Numba starts them all at once.
    Raises ValueError for a count that cannot be.
    """
    config: Any = numba.config  # type: ignore[attr-defined]
    if not 1 <= count <= MOST_THREADS:
        raise ValueError(f"set_threads: count is {count} but must be 1 to {MOST_THREADS}")
    if count > config.NUMBA_NUM_THREADS:
        if numba_parallel._is_initialized:
            raise ValueError(
                f"set_threads: count is {count} but Numba has started {config.NUMBA_NUM_THREADS}; "
                "ask before the first kernel runs, or set NUMBA_NUM_THREADS"
            )
        # read from NUMBA_NUM_THREADS when Numba was imported, which has been before this call
        config.NUMBA_NUM_THREADS = numba_parallel.NUM_THREADS = count
        numba_parallel.snt_check = numba_parallel.gen_snt_check()
    numba.set_num_threads(count)


def threads() -> int:
    """How many threads the kernels use."""
    return numba.get_num_threads()
