"""The columns of a convolution: what each output pixel sees, gathered from images into rows of a
scratch array, or added back to them.

They are `im2col` and its adjoint for a few output pixels of one group. Everything is an address
(int64) or a size; distances are in bytes.
"""

from __future__ import annotations

from typing import NamedTuple

import numba

from .im2col import Pair, output_size
from .isa import ISA
from .simd import add_vectors, clear_vector, copy_vector, vector_function

__all__ = ["WIDTH", "Windows", "is_pointwise", "list_windows"]
__all__ += ["add_numbers", "clear_numbers", "copy_numbers", "copy_rows", "walk_columns"]

WIDTH = ISA.width or 1  # channels in a vector

_copy = vector_function(WIDTH)(copy_vector)
_copy_end = vector_function(WIDTH, optional=True)(copy_vector)
_add = vector_function(WIDTH)(add_vectors)
_add_end = vector_function(WIDTH, optional=True)(add_vectors)
_clear = vector_function(WIDTH)(clear_vector)
_clear_end = vector_function(WIDTH, optional=True)(clear_vector)


class Windows(NamedTuple):
    """A convolution: images (n, h, w, groups·c) -> (n, p, q, groups·k) through r x s windows."""

    n: int
    h: int
    w: int
    c: int
    p: int
    q: int
    k: int
    r: int
    s: int
    down: int  # the stride
    across: int
    top: int  # the padding
    left: int
    row_step: int  # the dilation
    column_step: int
    groups: int = 1


def list_windows(
    x: tuple[int, ...],
    w: tuple[int, ...],
    stride: Pair,
    padding: Pair,
    dilation: Pair,
    groups: int = 1,
) -> Windows:
    """The convolution of images of shape x (n, h, w, c) with weights w (r, s, …, k)."""
    (n, h, width, c), (r, s, _, k) = x, w
    p = output_size(h, r, stride[0], padding[0], dilation[0])
    q = output_size(width, s, stride[1], padding[1], dilation[1])
    sizes = n, h, width, c // groups, p, q, k // groups
    return Windows(*sizes, r, s, *stride, *padding, *dilation, groups)


def is_pointwise(s: Windows) -> bool:
    """Whether the columns are the images themselves."""
    return (s.r, s.s, s.down, s.across, s.top, s.left) == (1, 1, 1, 1, 0, 0)


@numba.njit(nogil=True)
def copy_numbers(to, x, count):
    """to = x, so many numbers."""
    whole = count // WIDTH * WIDTH
    for i in range(0, whole, WIDTH):
        _copy(to + 4 * i, x + 4 * i)
    if whole < count:
        _copy_end(to + 4 * whole, x + 4 * whole, count - whole)


@numba.njit(nogil=True)
def add_numbers(to, x, count):
    """to += x"""
    whole = count // WIDTH * WIDTH
    for i in range(0, whole, WIDTH):
        _add(to + 4 * i, x + 4 * i)
    if whole < count:
        _add_end(to + 4 * whole, x + 4 * whole, count - whole)


@numba.njit(nogil=True)
def clear_numbers(to, count):
    """to = 0"""
    whole = count // WIDTH * WIDTH
    for i in range(0, whole, WIDTH):
        _clear(to + 4 * i)
    if whole < count:
        _clear_end(to + 4 * whole, count - whole)


@numba.njit(nogil=True)
def copy_rows(to, to_row, x, x_row, rows, count):
    """to = x, so many numbers of each row."""
    for i in range(rows):
        copy_numbers(to + i * to_row, x + i * x_row, count)


@numba.njit(nogil=True)
def _walk_taps(s, line, inside, left, columns, row, count, scatter):
    """One row of the windows, for `count` neighbouring output pixels; the first begins at `left` in
    the line of the image, which may not be inside it.
    """
    pixel_bytes, size = 4 * s.c * s.groups, s.s * s.c
    joined = s.column_step == 1 and s.groups == 1  # the taps are one piece of memory
    for i in range(count):
        first, column = left + i * s.across, columns + i * row
        whole = inside and joined and first >= 0 and first + s.s <= s.w
        if whole and scatter:
            add_numbers(line + pixel_bytes * first, column, size)
        elif whole:
            copy_numbers(column, line + pixel_bytes * first, size)
        elif inside:
            for j in range(s.s):
                x, place = first + j * s.column_step, column + 4 * j * s.c
                if 0 <= x < s.w and scatter:
                    add_numbers(line + pixel_bytes * x, place, s.c)
                elif 0 <= x < s.w:
                    copy_numbers(place, line + pixel_bytes * x, s.c)
                elif not scatter:
                    clear_numbers(place, s.c)
        elif not scatter:
            clear_numbers(column, size)


@numba.njit(nogil=True)
def walk_columns(s, image, columns, row, first, last, scatter):
    """The columns of output pixels first … last - 1 of all images, one below the other at distance
    `row`: gathered from `image`, the first channel of a group, or with `scatter` added to it.
    """
    while first < last:
        n, pixel = first // (s.p * s.q), first % (s.p * s.q)
        count = min(s.q - pixel % s.q, last - first)  # the pixels of one line of outputs
        top, left = pixel // s.q * s.down - s.top, pixel % s.q * s.across - s.left
        for tap in range(s.r):
            y = top + tap * s.row_step
            line = image + 4 * s.c * s.groups * s.w * (n * s.h + y)
            place = columns + 4 * tap * s.s * s.c
            _walk_taps(s, line, 0 <= y < s.h, left, place, row, count, scatter)
        columns += row * count
        first += count
