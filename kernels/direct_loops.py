"""The compiled loops of convolutions with any window: the columns of a few pixels at a time, in the
cache, times the weights.

As in `columns`, everything is an address (int64) or a size; distances are in bytes. `depth` is
r·s·c, the length of a column. Weights are packed into blocks of BLOCK outputs, (groups, blocks,
depth, BLOCK), the last one narrower, a multiple of WIDTH with zeros after the k-th output.

Each group of inputs is a convolution of its own: its c of the channels of a pixel give its k. The
loops take the groups one after another for the same few pixels.
"""

from __future__ import annotations

import numba

from .bf16 import AVAILABLE, pair_rows, round_rows
from .columns import WIDTH, add_numbers, clear_numbers, copy_numbers, copy_rows, walk_columns
from .finish import finish_numbers
from .isa import ISA
from .microkernel import make_product, round_up
from .simd import read_float, write_float
from .tasks import chunks, runs, share, share_runs, tasks

__all__ = ["BLOCK", "CHANNELS", "ROWS", "convolve", "convolve_input_gradient"]
__all__ += ["finish_weight_gradient", "pack_weights", "pair_weights", "sum_weight_gradient"]

BLOCK = ISA.block or 1  # output channels of one product
CHANNELS = ISA.channels
STRIP = 16  # rows of weights that are transposed together
FILLED = 4  # products, by the pixels of the images that are a task
ROWS = 12  # pixel counts are padded to a multiple of this, and so to one of the products' rows

_tall_product = make_product(WIDTH, ISA.rows or (1,))
_short_product = make_product(WIDTH, ISA.short_rows or (1,))
# compiled in, but never called, where the CPU has no bf16
_tall_pairs = make_product(WIDTH, ISA.rows or (1,), pairs=AVAILABLE)
_short_pairs = make_product(WIDTH, ISA.short_rows or (1,), pairs=AVAILABLE)


@numba.njit(cache=True, parallel=True)
def pack_weights(w, u, groups, depth, k, transposed, workers):
    """u (groups, blocks, depth, BLOCK) = w (groups, depth, k), or of w (groups, k, depth) with
    `transposed`.
    """
    strips = (depth + STRIP - 1) // STRIP
    count = groups * strips
    left = share(count, workers)
    for worker in numba.prange(workers):
        for item in tasks(left, worker):
            group, strip = item // strips, item % strips
            rows = range(strip * STRIP, min(strip * STRIP + STRIP, depth))
            for o in range(0, k, BLOCK):
                width, outputs = min(BLOCK, round_up(k - o, WIDTH)), min(BLOCK, k - o)
                matrix = w + 4 * group * depth * k
                block = u + 4 * depth * (group * round_up(k, WIDTH) + o)
                for i in rows:
                    if not transposed:
                        copy_numbers(block + 4 * i * width, matrix + 4 * (i * k + o), outputs)
                    clear_numbers(block + 4 * (i * width + outputs), width - outputs)
                for j in range(outputs if transposed else 0):
                    for i in rows:
                        value = read_float(matrix + 4 * ((o + j) * depth + i))
                        write_float(block + 4 * (i * width + j), value)


@numba.njit(cache=True, parallel=True)
def pair_weights(u, groups, depth, k, workers):
    """Packed weights u (groups, blocks, depth, BLOCK) as pairs of bf16, in place: (depth + 1) // 2
    rows at the beginning of each block.
    """
    blocks = (k + BLOCK - 1) // BLOCK
    count = groups * blocks
    left = share(count, workers)
    for worker in numba.prange(workers):
        for item in tasks(left, worker):
            group, o = item // blocks, item % blocks * BLOCK
            width = min(BLOCK, round_up(k - o, WIDTH))
            block = u + 4 * depth * (group * round_up(k, WIDTH) + o)
            pair_rows(block, 4 * width, depth, width)


@numba.njit(nogil=True)
def _convolve_pixels(s, pointwise, pairs, x, u, y, finish, scratch, pixels, first, last):
    """The output pixels first … last - 1, at most `pixels`. Scratch: columns (pixels, depth), a
    block of outputs (pixels, BLOCK).
    """
    depth, columns = s.r * s.s * s.c, scratch
    block, whole = columns + 4 * pixels * depth, last - first == pixels
    x_row, y_row = 4 * s.c * s.groups, 4 * s.k * s.groups
    for group in range(s.groups):
        a, a_row = columns, 4 * depth
        if pointwise and whole and not pairs:  # else a product computes rows beyond the last
            a, a_row = x + x_row * first + 4 * group * s.c, x_row
        else:
            walk_columns(s, x + 4 * group * s.c, columns, a_row, first, last, False)
        if pairs:
            round_rows(columns, a_row, last - first, depth)
        for o in range(0, s.k, BLOCK):
            width = min(BLOCK, round_up(s.k - o, WIDTH))
            output = group * s.k + o
            place = y + y_row * first + 4 * output
            to, row = place, y_row
            if not whole or o + width > s.k:
                to, row = block, 4 * BLOCK
            b = u + 4 * depth * (group * round_up(s.k, WIDTH) + o)
            sizes = a_row, 4, 4 * width, row
            if pairs:
                half = (depth + 1) // 2
                _tall_pairs(False, last - first, width // WIDTH, a, b, to, half, *sizes)
            else:
                _tall_product(False, last - first, width // WIDTH, a, b, to, depth, *sizes)
            if to == block:
                copy_rows(place, y_row, block, row, last - first, min(width, s.k - o))
            if finish.bias:
                for pixel in range(first, last):
                    at = pixel * s.groups * s.k + output
                    finish_numbers(finish, y, output, at, min(width, s.k - o))


@numba.njit(cache=True, parallel=True)
def convolve(s, pointwise, pairs, x, u, y, finish, scratch, worker_bytes, workers, pixels):
    """y (n, p, q, groups·k) from images x and packed weights u, and what `finish` adds, `pixels` at
    a time. With `pairs`, u is of pairs of bf16, and the columns are rounded to such.
    """
    left = share(s.n * s.p * s.q, workers)
    for worker in numba.prange(workers):
        place = scratch + worker * worker_bytes
        for first, last in chunks(left, worker, pixels):
            _convolve_pixels(s, pointwise, pairs, x, u, y, finish, place, pixels, first, last)


@numba.njit(nogil=True)
def _input_gradient(s, pairs, g, u, dx, scratch, pixels, image, end_image):
    """dx of the images `image` … end_image - 1. Scratch: rows of g (pixels, k), columns (pixels,
    depth).
    """
    depth, count = s.r * s.s * s.c, s.p * s.q
    padded, g_row = round_up(depth, WIDTH), 4 * s.k * s.groups
    rows, columns = scratch, scratch + 4 * pixels * s.k
    numbers = (end_image - image) * s.h * s.w * s.c * s.groups
    clear_numbers(dx + 4 * image * s.h * s.w * s.c * s.groups, numbers)
    end = end_image * count
    for first in range(image * count, end, pixels):
        last = min(first + pixels, end)
        for group in range(s.groups):
            a, a_row = g + g_row * first + 4 * group * s.k, g_row
            if pairs or (last - first) % ROWS:
                copy_rows(rows, 4 * s.k, a, a_row, last - first, s.k)
                a, a_row = rows, 4 * s.k
            if pairs:
                round_rows(rows, a_row, last - first, s.k)
            for o in range(0, depth, BLOCK):
                width = min(BLOCK, round_up(depth - o, WIDTH))
                b, to = u + 4 * s.k * (group * padded + o), columns + 4 * o
                sizes = a_row, 4, 4 * width, 4 * padded
                if pairs:
                    half = (s.k + 1) // 2
                    _tall_pairs(False, last - first, width // WIDTH, a, b, to, half, *sizes)
                else:
                    _tall_product(False, last - first, width // WIDTH, a, b, to, s.k, *sizes)
            walk_columns(s, dx + 4 * group * s.c, columns, 4 * padded, first, last, True)


@numba.njit(cache=True, parallel=True)
def convolve_input_gradient(s, pairs, g, u, dx, scratch, worker_bytes, workers, pixels):
    """dx (n, h, w, groups·c) from g (n, p, q, groups·k) and the packed transposed weights u
    (groups, blocks, k, BLOCK). With `pairs`, u is of pairs of bf16, and g is rounded to such.

    A worker takes some whole images at a time, as many as fill a few products.
    """
    together = (FILLED * pixels + s.p * s.q - 1) // (s.p * s.q)
    left = share(s.n, workers)
    for worker in numba.prange(workers):
        place = scratch + worker * worker_bytes
        for first, last in chunks(left, worker, together):
            _input_gradient(s, pairs, g, u, dx, place, pixels, first, last)


@numba.njit(nogil=True)
def _sum_pixels(
    s, direct, pairs, x, g, sums, add, columns, column_row, begin, end, pixels, low, high
):  # fmt: skip
    """A part's sums (groups, blocks, depth, BLOCK), the blocks low … high - 1 of all groups, over
    the output pixels begin … end - 1, or added to what is there.
    """
    depth, k = round_up(s.r * s.s * s.c, CHANNELS), round_up(s.k, WIDTH)
    blocks, g_row = (k + BLOCK - 1) // BLOCK, 4 * s.k * s.groups
    panel = columns + column_row * pixels
    for first in range(begin, end, pixels):
        rest = min(first + pixels, end) - first
        a, a_row = columns, column_row
        for item in range(low, high):
            group, o = item // blocks, item % blocks * BLOCK
            if o == 0 or item == low:
                if direct and not pairs:
                    a_row = 4 * s.c * s.groups
                    a = x + a_row * first + 4 * group * s.c
                else:
                    image = x + 4 * group * s.c
                    walk_columns(s, image, columns, a_row, first, first + rest, False)
                if pairs:
                    pair_rows(columns, a_row, rest, depth)
            width = min(BLOCK, k - o)
            place = g + g_row * first + 4 * (group * s.k + o)
            copy_rows(panel, 4 * width, place, g_row, rest, min(width, s.k - o))
            to = sums + 4 * depth * (group * k + o)
            sizes, more = (4, a_row, 4 * width, 4 * width), add or first > begin
            if pairs:
                pair_rows(panel, 4 * width, rest, width)
                half = (rest + 1) // 2
                _short_pairs(more, depth, width // WIDTH, a, panel, to, half, *sizes)
            else:
                _short_product(more, depth, width // WIDTH, a, panel, to, rest, *sizes)


@numba.njit(cache=True, parallel=True)
def sum_weight_gradient(
    s, direct, pairs, x, g, sums, scratch, worker_bytes, column_row,
    parts, divisions, pixels, workers,
):  # fmt: skip
    """sums (parts, groups, blocks, depth, BLOCK): over the output pixels of a part, `pixels` at a
    time.

    Each of the parts x divisions has its pixels and its blocks of output channels. A worker's
    scratch: columns (pixels, depth) in rows of `column_row` bytes, which `direct` leaves where they
    are, and a block of g (pixels, BLOCK). With `pairs`, the numbers of two pixels are pairs of
    bf16.
    """
    depth, k = round_up(s.r * s.s * s.c, CHANNELS), round_up(s.k, WIDTH)
    count, items = s.n * s.p * s.q, (k + BLOCK - 1) // BLOCK * s.groups
    longest, part_bytes = (count + parts - 1) // parts, 4 * depth * k * s.groups
    left = share_runs(parts * divisions, (longest + pixels - 1) // pixels)
    for worker in numba.prange(workers):
        columns = scratch + worker * worker_bytes
        for run, chunk, last_chunk in runs(left, workers):
            part, division = run // divisions, run % divisions
            low, high = division * items // divisions, (division + 1) * items // divisions
            begin, end = part * count // parts, (part + 1) * count // parts
            end = min(begin + last_chunk * pixels, end)
            begin += chunk * pixels
            _sum_pixels(
                s, direct, pairs, x, g, sums + part * part_bytes, chunk > 0,
                columns, column_row, begin, end, pixels, low, high,
            )  # fmt: skip


@numba.njit(cache=True, parallel=True)
def finish_weight_gradient(s, sums, dw, parts, workers):
    """dw (groups, depth, k): the sums of the first part, plus those of the second, …"""
    column, depth = s.r * s.s * s.c, round_up(s.r * s.s * s.c, CHANNELS)
    count, k = s.groups * column, round_up(s.k, WIDTH)
    left = share(count, workers)
    for worker in numba.prange(workers):
        for i in tasks(left, worker):
            group, row = i // column, i % column
            for o in range(0, s.k, BLOCK):
                width = min(BLOCK, k - o)
                to = dw + 4 * (i * s.k + o)
                for part in range(parts):
                    place = sums + 4 * (depth * ((part * s.groups + group) * k + o) + row * width)
                    if part == 0:
                        copy_numbers(to, place, min(width, s.k - o))
                    else:
                        add_numbers(to, place, min(width, s.k - o))
