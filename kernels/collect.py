"""Gradients end to end in the buffer that an optimiser's one kernel call reads.

One kernel call copies them all. On a GPU a copy for each of a network's sixty or more parameters
would be a quarter of a step's launches; there one launch copies sixteen.
"""

from __future__ import annotations

from itertools import accumulate
from typing import Any

import numba
import numpy as np

from .cases import Case, permuted_view
from .dispatch import array_module, kernel
from .launch import THREADS, Source, same_floats
from .memory import address
from .simd import read_float, write_float

__all__ = ["collect"]

SOURCE = Source("collect.cu")
PARTS = 16  # arrays a launch, as many as the kernel has parameters for
EACH = 8  # numbers a GPU thread
CHUNK = 1 << 14  # numbers a task of the CPU


@kernel(
    Case((31,), (3, 4), (), (2, 1, 9)),
    Case((12,), permuted_view(3, 4)),
    Case((5000,), (2049,), (903,), (2048,)),
    Case((2 * CHUNK + 94,), (2, 3, 5), (2 * CHUNK + 4,), (60,)),
    Case((3 * 17 + 7,), *((k % 2 + 1, 2) for k in range(19))),
)
def collect(out: Any, *parts: Any) -> Any:
    """Write arrays of any shapes, each row by row, end to end into out (n,); returns out."""
    start = 0
    for part in parts:
        out[start : start + part.size].reshape(part.shape)[...] = part
        start += part.size
    return out


def _collects(*arrays: Any) -> bool:
    if numba.config.DISABLE_JIT:  # type: ignore[attr-defined]
        return False  # addresses are for compiled code
    dtype = arrays[0].dtype
    return dtype.itemsize % 4 == 0 and all(
        a.dtype == dtype and a.flags.c_contiguous for a in arrays
    )


@collect.cpu(serves=_collects)
def _collect_cpu(out, *parts):
    places = np.array([address(part) for part in parts])
    ends = np.array(list(accumulate(part.nbytes // 4 for part in parts)))
    _collect(places, ends, address(out))
    return out


@numba.njit(nogil=True)
def _collect_chunk(places, ends, out, low, high):
    """Write the numbers low … high - 1, of 4 bytes each."""
    part = np.searchsorted(ends, low, side="right")
    while low < high:
        stop = min(ends[part], high)
        start = ends[part - 1] if part else 0
        for i in range(low, stop):
            write_float(out + 4 * i, read_float(places[part] + 4 * (i - start)))
        low, part = stop, part + 1


@numba.njit(cache=True, parallel=True, nogil=True)
def _collect(places, ends, out):
    for chunk in numba.prange((ends[-1] + CHUNK - 1) // CHUNK):
        _collect_chunk(places, ends, out, chunk * CHUNK, min((chunk + 1) * CHUNK, ends[-1]))


@collect.cuda(serves=lambda out, *parts: out.flags.c_contiguous and same_floats(out, *parts))
def _collect_cuda(out: Any, *parts: Any) -> Any:
    given, start = [array_module(out).ascontiguousarray(p) for p in parts if p.size], 0
    for i in range(0, len(given), PARTS):
        some = given[i : i + PARTS]
        sizes, absent = [p.size for p in some], PARTS - len(some)
        *firsts, blocks = accumulate((-(-n // (THREADS * EACH)) for n in sizes), initial=0)
        SOURCE.launch(
            *("collect", (blocks,), (THREADS,), out[start : start + sum(sizes)], EACH),
            *(*some, *[None] * absent, *sizes, *[0] * absent),
            *(*firsts[1:], *[blocks] * absent),
        )
        start += sum(sizes)
    return out
