"""Writing into a part of a larger array, as slices and paddings do.

NumPy moves such an array one short row after another on one thread. In ResNet-20, whose shortcuts
skip pixels and pad channels, that was over a hundredth of a training step's CPU time.
"""

from __future__ import annotations

from typing import Any

import numba
import numpy as np

from .cases import Case
from .dispatch import kernel
from .isa import ISA
from .memory import threads
from .simd import add_vectors, copy_vector, vector_function
from .tasks import share, tasks

__all__ = ["write_part"]

WIDTH = ISA.width or 1  # numbers in a vector

_copy = vector_function(WIDTH)(copy_vector)
_copy_end = vector_function(WIDTH, optional=True)(copy_vector)
_add = vector_function(WIDTH)(add_vectors)
_add_end = vector_function(WIDTH, optional=True)(add_vectors)


@kernel(
    Case((3, 2, 5, 4), (3, 2, 5, 4), add=True),
    Case((2, 3, 4, 37), (2, 3, 4, 37), add=False),
    Case((5, 19), (5, 19), add=True),
    Case((16,), (16,), add=False),
)
def write_part(to: Any, part: Any, *, add: bool) -> None:
    """to = part, or to += part with `add`: views of any strides, of one shape."""
    if add:
        to += part
    else:
        to[...] = part


def _serves(to: Any, part: Any, *, add: bool) -> bool:
    compiles = ISA.width and not numba.config.DISABLE_JIT  # type: ignore[attr-defined]
    if not compiles or not 1 <= to.ndim <= 4:
        return False
    rows = to.strides[-1] == part.strides[-1] == 4  # one number after another
    return rows and to.dtype == part.dtype == np.float32 and to.shape == part.shape


@write_part.cpu(serves=_serves)
def _write_part_cpu(to, part, *, add):
    missing = 4 - to.ndim
    sizes = (1,) * missing + to.shape
    to_strides, part_strides = ((0,) * missing + a.strides[:-1] for a in (to, part))
    start, source = (a.__array_interface__["data"][0] for a in (to, part))
    _write_rows(start, source, sizes, to_strides, part_strides, add, threads())


@numba.njit(nogil=True)
def _write_row(to, part, count, add):
    whole = count // WIDTH * WIDTH
    if add:
        for i in range(0, whole, WIDTH):
            _add(to + 4 * i, part + 4 * i)
        if whole < count:
            _add_end(to + 4 * whole, part + 4 * whole, count - whole)
    else:
        for i in range(0, whole, WIDTH):
            _copy(to + 4 * i, part + 4 * i)
        if whole < count:
            _copy_end(to + 4 * whole, part + 4 * whole, count - whole)


@numba.njit(cache=True, parallel=True)
def _write_rows(to, part, sizes, to_strides, part_strides, add, workers):
    """Both arrays as (a, b, c, count): a task is one of the a·b planes."""
    left = share(sizes[0] * sizes[1], workers)
    for worker in numba.prange(workers):
        for plane in tasks(left, worker):
            i, j = plane // sizes[1], plane % sizes[1]
            row = to + i * to_strides[0] + j * to_strides[1]
            source = part + i * part_strides[0] + j * part_strides[1]
            for k in range(sizes[2]):
                _write_row(row + k * to_strides[2], source + k * part_strides[2], sizes[3], add)
