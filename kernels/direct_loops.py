"""The compiled loops of convolutions with any window: the columns of a few pixels at a time, in the
cache, times the weights.

As in `winograd_loops`, everything is an address (int64) or a size; distances are in bytes. `depth`
is r·s·c, the length of a column. Weights are packed into blocks of BLOCK outputs, (blocks, depth,
BLOCK), the last one narrower, a multiple of WIDTH with zeros after the k-th output.
"""

from __future__ import annotations

from typing import NamedTuple

import numba

from .finish import finish_numbers
from .isa import ISA
from .microkernel import make_product, round_up
from .simd import add_vectors, clear_vector, copy_vector, read_float, vector_function, write_float

__all__ = ["BLOCK", "CHANNELS", "ROWS", "WIDTH", "Windows"]
__all__ += ["convolve", "convolve_input_gradient", "finish_weight_gradient", "pack_weights"]
__all__ += ["sum_weight_gradient"]

WIDTH = ISA.width or 1  # channels in a vector
BLOCK = ISA.block or 1  # output channels of one product
CHANNELS = ISA.channels
STRIP = 16  # rows of weights that are transposed together
ROWS = 12  # pixel counts are padded to a multiple of this, and so to one of the products' rows

_tall_product = make_product(WIDTH, ISA.rows or (1,))
_short_product = make_product(WIDTH, ISA.short_rows or (1,))
_copy = vector_function(WIDTH)(copy_vector)
_copy_end = vector_function(WIDTH, optional=True)(copy_vector)
_add = vector_function(WIDTH)(add_vectors)
_add_end = vector_function(WIDTH, optional=True)(add_vectors)
_clear = vector_function(WIDTH)(clear_vector)
_clear_end = vector_function(WIDTH, optional=True)(clear_vector)


class Windows(NamedTuple):
    """A convolution: images (n, h, w, c) -> (n, p, q, k) through r x s windows."""

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


@numba.njit(nogil=True)
def _copy_numbers(to, x, count):
    whole = count // WIDTH * WIDTH
    for i in range(0, whole, WIDTH):
        _copy(to + 4 * i, x + 4 * i)
    if whole < count:
        _copy_end(to + 4 * whole, x + 4 * whole, count - whole)


@numba.njit(nogil=True)
def _add_numbers(to, x, count):
    whole = count // WIDTH * WIDTH
    for i in range(0, whole, WIDTH):
        _add(to + 4 * i, x + 4 * i)
    if whole < count:
        _add_end(to + 4 * whole, x + 4 * whole, count - whole)


@numba.njit(nogil=True)
def _clear_numbers(to, count):
    whole = count // WIDTH * WIDTH
    for i in range(0, whole, WIDTH):
        _clear(to + 4 * i)
    if whole < count:
        _clear_end(to + 4 * whole, count - whole)


@numba.njit(nogil=True)
def _copy_rows(to, to_row, x, x_row, rows, count):
    for i in range(rows):
        _copy_numbers(to + i * to_row, x + i * x_row, count)


@numba.njit(nogil=True)
def _walk_columns(s, image, columns, row, first, last, scatter):
    """The columns of output pixels first … last - 1 of all images, one below the other at distance
    `row`: gathered from `image`, or with `scatter` added to it.
    """
    n, rest = first // (s.p * s.q), first % (s.p * s.q)
    top, left = rest // s.q * s.down - s.top, rest % s.q * s.across - s.left
    for pixel in range(last - first):
        column = columns + pixel * row
        for i in range(s.r):
            y = top + i * s.row_step
            line = image + 4 * s.c * s.w * (n * s.h + y)
            inside = 0 <= y < s.h
            # neighbouring taps that lie inside are one piece of memory
            together = inside and s.column_step == 1 and left >= 0 and left + s.s <= s.w
            taps, count = (1, s.s * s.c) if together else (s.s, s.c)
            for j in range(taps):
                x = left + j * s.column_step
                if inside and 0 <= x < s.w:
                    if scatter:
                        _add_numbers(line + 4 * s.c * x, column, count)
                    else:
                        _copy_numbers(column, line + 4 * s.c * x, count)
                elif not scatter:
                    _clear_numbers(column, count)
                column += 4 * count
        left += s.across
        if left == s.q * s.across - s.left:  # the next line, or image
            left = -s.left
            top += s.down
            if top == s.p * s.down - s.top:
                top = -s.top
                n += 1


@numba.njit(cache=True, parallel=True)
def pack_weights(w, u, depth, k, transposed, workers):
    """u (blocks, depth, BLOCK) = w (depth, k), or of w (k, depth) with `transposed`."""
    strips = (depth + STRIP - 1) // STRIP
    for worker in numba.prange(workers):
        for strip in range(worker * strips // workers, (worker + 1) * strips // workers):
            rows = range(strip * STRIP, min(strip * STRIP + STRIP, depth))
            for o in range(0, k, BLOCK):
                width, count = min(BLOCK, round_up(k - o, WIDTH)), min(BLOCK, k - o)
                block = u + 4 * o * depth
                for i in rows:
                    if not transposed:
                        _copy_numbers(block + 4 * i * width, w + 4 * (i * k + o), count)
                    _clear_numbers(block + 4 * (i * width + count), width - count)
                for j in range(count if transposed else 0):
                    for i in rows:
                        value = read_float(w + 4 * ((o + j) * depth + i))
                        write_float(block + 4 * (i * width + j), value)


@numba.njit(cache=True, parallel=True)
def convolve(s, pointwise, x, u, y, finish, scratch, worker_bytes, workers, pixels):
    """y (n, p, q, k) from images x and packed weights u, and what `finish` adds, `pixels` at a
    time.

    Each worker's scratch: columns (pixels, depth), a block of outputs (pixels, BLOCK).
    """
    depth, count = s.r * s.s * s.c, s.n * s.p * s.q
    chunks = (count + pixels - 1) // pixels
    for worker in numba.prange(workers):
        columns = scratch + worker * worker_bytes
        block = columns + 4 * pixels * depth
        for chunk in range(worker * chunks // workers, (worker + 1) * chunks // workers):
            first = chunk * pixels
            last = min(first + pixels, count)
            whole = last - first == pixels  # else a product computes rows beyond the last
            a = columns
            if pointwise and whole:
                a = x + 4 * depth * first
            else:
                _walk_columns(s, x, columns, 4 * depth, first, last, False)
            for o in range(0, s.k, BLOCK):
                width = min(BLOCK, round_up(s.k - o, WIDTH))
                to, row = y + 4 * (first * s.k + o), 4 * s.k
                if not whole or o + width > s.k:
                    to, row = block, 4 * BLOCK
                _tall_product(
                    False, last - first, width // WIDTH, a, u + 4 * o * depth, to,
                    depth, 4 * depth, 4, 4 * width, row,
                )  # fmt: skip
                if to == block:
                    end = y + 4 * (first * s.k + o)
                    _copy_rows(end, 4 * s.k, block, row, last - first, min(width, s.k - o))
                if finish.bias:
                    for pixel in range(first, last):
                        finish_numbers(finish, y, o, pixel * s.k + o, min(width, s.k - o))


@numba.njit(cache=True, parallel=True)
def convolve_input_gradient(s, g, u, dx, scratch, worker_bytes, workers, pixels):
    """dx (n, h, w, c) from g (n, p, q, k) and the packed transposed weights u (blocks, k, BLOCK).

    Each worker has whole images. Its scratch: rows of g (pixels, k), columns (pixels, depth).
    """
    depth, count = s.r * s.s * s.c, s.p * s.q
    padded = round_up(depth, WIDTH)
    for worker in numba.prange(workers):
        rows = scratch + worker * worker_bytes
        columns = rows + 4 * pixels * s.k
        image = worker * s.n // workers  # the next to be cleared
        end = (worker + 1) * s.n // workers * count
        for first in range(image * count, end, pixels):
            last = min(first + pixels, end)
            while image * count < last:
                _clear_numbers(dx + 4 * image * s.h * s.w * s.c, s.h * s.w * s.c)
                image += 1
            a = g + 4 * first * s.k
            if (last - first) % ROWS:
                a = rows
                _copy_numbers(rows, g + 4 * first * s.k, (last - first) * s.k)
            for o in range(0, depth, BLOCK):
                width = min(BLOCK, round_up(depth - o, WIDTH))
                _tall_product(
                    False, last - first, width // WIDTH, a, u + 4 * o * s.k, columns + 4 * o,
                    s.k, 4 * s.k, 4, 4 * width, 4 * padded,
                )  # fmt: skip
            _walk_columns(s, dx, columns, 4 * padded, first, last, True)


@numba.njit(cache=True, parallel=True)
def sum_weight_gradient(s, direct, x, g, sums, scratch, worker_bytes, parts, divisions, pixels):
    """sums (parts, blocks, depth, BLOCK): over the output pixels of a part, `pixels` at a time.

    Each of the parts x divisions workers has its pixels and its blocks of output channels. With
    `direct`, x and g are read in place; else from the scratch: columns (pixels, depth), g (pixels,
    k), with depth and k padded.
    """
    depth, k = round_up(s.r * s.s * s.c, CHANNELS), round_up(s.k, WIDTH)
    count, blocks = s.n * s.p * s.q, (k + BLOCK - 1) // BLOCK
    for worker in numba.prange(parts * divisions):
        part, division = worker // divisions, worker % divisions
        low, high = division * blocks // divisions, (division + 1) * blocks // divisions
        columns = scratch + worker * worker_bytes
        rows = columns + 4 * pixels * depth
        begin, end = part * count // parts, (part + 1) * count // parts
        for first in range(begin, end, pixels):
            last = min(first + pixels, end)
            a, b = columns, g + 4 * first * s.k
            if direct:
                a = x + 4 * first * s.c
            else:
                _walk_columns(s, x, columns, 4 * depth, first, last, False)
            if s.k != k:
                b = rows
                _copy_rows(rows, 4 * k, g + 4 * first * s.k, 4 * s.k, last - first, s.k)
            for block in range(low, high):
                width = min(BLOCK, k - block * BLOCK)
                to = sums + 4 * depth * (part * k + block * BLOCK)
                _short_product(
                    first > begin, depth, width // WIDTH, a, b + 4 * block * BLOCK, to,
                    last - first, 4, 4 * depth, 4 * k, 4 * width,
                )  # fmt: skip


@numba.njit(cache=True, parallel=True)
def finish_weight_gradient(s, sums, dw, parts, workers):
    """dw (depth, k): the sums of the first part, plus those of the second, …"""
    count, depth = s.r * s.s * s.c, round_up(s.r * s.s * s.c, CHANNELS)
    k = round_up(s.k, WIDTH)
    for worker in numba.prange(workers):
        for i in range(worker * count // workers, (worker + 1) * count // workers):
            for o in range(0, s.k, BLOCK):
                width = min(BLOCK, k - o)
                to = dw + 4 * (i * s.k + o)
                for part in range(parts):
                    place = sums + 4 * (depth * (part * k + o) + i * width)
                    if part == 0:
                        _copy_numbers(to, place, min(width, s.k - o))
                    else:
                        _add_numbers(to, place, min(width, s.k - o))
