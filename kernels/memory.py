"""The buffer pool of the kernels' outputs and workspaces, and their number of threads.

Fresh memory is slow: the kernel clears every page at first touch, which for a training step costs
as much as its BatchNorms. So memory that is no longer in use is kept and handed out again. What
makes that safe: the base of a pooled array is a `_Lease`, every view keeps it alive, and only its
collection returns the memory. Nobody frees by hand, so nothing that a caller still holds is ever
overwritten.
"""

from __future__ import annotations

import math
import os
import threading
from bisect import bisect_left, insort
from collections import deque
from typing import Any

import numba
import numpy as np
from numba.np.ufunc import parallel as numba_parallel

from .dispatch import array_module

__all__ = ["Pool", "address", "empty", "pool", "set_threads", "threads", "workspace", "zeros"]

SMALLEST = 1 << 15  # bytes; below this, malloc recycles memory by itself
PAGE = 1 << 12  # bytes: pieces are whole pages
AREA = 1 << 26  # bytes: the first area
ALIGNMENT = 64  # bytes: a cache line, and one AVX-512 register
MOST_THREADS = 512  # more are a slip of the keyboard

# A thread that waits in a busy loop (OpenMP's default) steals the core from other work; one that
# sleeps wakes up late, and between two kernels the Python code takes up to 0.3 ms. So: spin for
# some 1 ms. Read when Numba starts its threads.
if "OMP_WAIT_POLICY" not in os.environ:
    os.environ["OMP_WAIT_POLICY"] = "passive"
    os.environ.setdefault("GOMP_SPINCOUNT", "100000")
# starting a parallel loop costs 5, 7 and 39 microseconds; the first that there is serves
if "NUMBA_THREADING_LAYER_PRIORITY" not in os.environ:
    numba.config.THREADING_LAYER_PRIORITY = ["omp", "tbb", "workqueue"]  # type: ignore[attr-defined]


def address(array: np.ndarray) -> int:
    """Where an array's memory begins: `array.ctypes.data` in a fifth of the time, and less for an
    array just as it came from the pool.
    """
    base = array.base
    return base.start if type(base) is _Lease else array.__array_interface__["data"][0]


class _Lease:
    """Owns one piece of memory while any array uses it; `__del__` gives it back to the pool."""

    __slots__ = ("__array_interface__", "_pool", "_size", "start")

    def __init__(
        self, pool: Pool, start: int, size: int, shape: tuple[int, ...], dtype: np.dtype
    ) -> None:
        self._pool, self.start, self._size = pool, start, size
        self.__array_interface__ = {
            "shape": shape,
            "typestr": dtype.str,
            "data": (start, False),
            "version": 3,
        }

    def __del__(self) -> None:
        self._pool.returned.append((self.start, self._size))


class Pool:
    """Hands out pieces of large areas of memory, and joins idle neighbours again.

    What came back is handed out as it is to who asks for just its size, the last one first: a
    training step asks for the same sizes again and again. Otherwise a piece is cut from the
    smallest idle one that is large enough; only if there is none, all that came back is joined with
    its neighbours, so that memory that one layer used serves the next, whatever its shapes. Last
    comes memory that nobody has touched: it is taken from the system in areas of doubling sizes,
    and the system gives them memory only where they are written.

    >>> pool = Pool()
    >>> a = pool.empty((256, 256), np.float32)
    >>> place = address(a)
    >>> del a
    >>> address(pool.empty((256, 255), np.float32)) == place
    True
    """

    def __init__(self) -> None:
        # a lease may end in any thread, also inside a collection in the middle of a locked line:
        # it only appends here, which is atomic
        self.returned: deque[tuple[int, int]] = deque()
        self._lock = threading.Lock()
        self._areas: dict[int, np.ndarray] = {}  # by where their first piece begins
        self._same: dict[int, list[int]] = {}  # starts of pieces that came back, by their size
        self._idle: list[tuple[int, int]] = []  # (size, start) of joined pieces, sorted
        self._sizes: dict[int, int] = {}  # of joined pieces, by their start
        self._starts: dict[int, int] = {}  # of joined pieces, by their end
        self._untouched = 0, 0  # (size, start) of the newest area's rest
        self.poison = bool(os.environ.get("MINIRES_POISON"))
        self.total = 0  # bytes of all areas
        self.fresh = 0  # areas ever taken from the system

    def empty(self, shape: tuple[int, ...], dtype: Any) -> np.ndarray:
        """An uninitialised C-contiguous array, filled with NaN when `poison` is set."""
        dtype = np.dtype(dtype)
        size = math.prod(shape) * dtype.itemsize
        if size < SMALLEST:
            array = np.empty(shape, dtype)
        else:
            size = -(-size // PAGE) * PAGE
            array = np.asarray(_Lease(self, self._take(size), size, tuple(shape), dtype))
        if self.poison:
            array.fill(np.nan if dtype.kind == "f" else 113)
        return array

    def _take(self, size: int) -> int:
        with self._lock:
            returned, same = self.returned, self._same
            while returned:
                start, came_back = returned.popleft()
                same.setdefault(came_back, []).append(start)
            if same.get(size):
                return same[size].pop()
            start = self._cut(size)
            if start is None:
                self._join()
                start = self._cut(size)
            return self._cut_untouched(size) if start is None else start

    def _cut(self, size: int) -> int | None:
        """The start of a piece from the smallest idle one that is large enough, if there is one."""
        position = bisect_left(self._idle, (size, 0))
        if position == len(self._idle):
            return None
        found, start = self._idle[position]
        self._remove(start)
        if found > size:
            self._add(start + size, found - size)
        return start

    def _cut_untouched(self, size: int) -> int:
        """The start of a piece from the newest area, or from a new one if that has no more."""
        if self._untouched[0] < size:
            self._leave_area()
            self._grow(size)
        left, start = self._untouched
        self._untouched = left - size, start + size
        return start

    def _leave_area(self) -> None:
        """Count what is left of the newest area as idle."""
        left, start = self._untouched
        if left:
            self._add(start, left)
        self._untouched = 0, 0

    def _join(self) -> None:
        """Join all that came back with its neighbours."""
        while self.returned:
            self._add(*self.returned.popleft())
        for size, starts in self._same.items():
            for start in starts:
                self._add(start, size)
        self._same.clear()

    def _add(self, start: int, size: int) -> None:
        """Note an idle piece, joined with those before and behind it."""
        if start in self._starts:
            before = self._starts[start]
            size += start - before
            start = before
            self._remove(start)
        if start + size in self._sizes:
            size += self._remove(start + size)
        insort(self._idle, (size, start))
        self._sizes[start], self._starts[start + size] = size, start

    def _remove(self, start: int) -> int:
        size = self._sizes.pop(start)
        del self._starts[start + size]
        del self._idle[bisect_left(self._idle, (size, start))]
        return size

    def _grow(self, size: int) -> None:
        size = max(size, self.total, AREA)
        # a page more than the pieces: areas never touch, so that neighbours are of one area
        area = np.empty(size + PAGE, np.uint8)
        start = address(area) + -address(area) % ALIGNMENT
        self._areas[start] = area
        self.total += size
        self.fresh += 1
        self._untouched = size, start

    @property
    def idle(self) -> int:
        """Bytes kept for reuse."""
        with self._lock:
            self._join()
            return sum(size for size, _ in self._idle) + self._untouched[0]

    @property
    def in_use(self) -> int:
        """Bytes that arrays use."""
        return self.total - self.idle

    def trim(self) -> None:
        """Return the areas of which nothing is in use to the system."""
        with self._lock:
            self._leave_area()
            self._join()
            for start, area in list(self._areas.items()):
                size = area.size - PAGE
                if self._sizes.get(start) == size:
                    self._remove(start)
                    del self._areas[start]
                    self.total -= size


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


class workspace:
    """A scratch array for one kernel call: `with workspace((48, 576), x.dtype) as columns:`."""

    __slots__ = ("_array",)

    def __init__(self, shape: tuple[int, ...], dtype: Any, like: Any = None) -> None:
        self._array = empty(shape, dtype, like)

    def __enter__(self) -> Any:
        return self._array

    def __exit__(self, *_: object) -> None:
        del self._array


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
    if numba_parallel._is_initialized:  # Numba's own function takes two locks to see that
        return numba_parallel._get_num_threads()
    return numba.get_num_threads()
