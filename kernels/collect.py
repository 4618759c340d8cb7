"""Gradients end to end in the buffer that an optimiser's one kernel call reads.

On a GPU a copy for each of a network's sixty or more parameters would be a quarter of a step's
launches; here one launch copies sixteen.
"""

from __future__ import annotations

from itertools import accumulate
from typing import Any

from .cases import Case, permuted_view
from .dispatch import array_module, kernel
from .launch import THREADS, Source, same_floats

__all__ = ["collect"]

SOURCE = Source("collect.cu")
PARTS = 16  # arrays a launch, as many as the kernel has parameters for
EACH = 8  # numbers a thread


@kernel(
    Case((31,), (3, 4), (), (2, 1, 9)),
    Case((12,), permuted_view(3, 4)),
    Case((5000,), (2049,), (903,), (2048,)),
    Case((3 * 17 + 7,), *((k % 2 + 1, 2) for k in range(19))),
)
def collect(out: Any, *parts: Any) -> Any:
    """Write arrays of any shapes, each row by row, end to end into out (n,); returns out."""
    start = 0
    for part in parts:
        out[start : start + part.size].reshape(part.shape)[...] = part
        start += part.size
    return out


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
