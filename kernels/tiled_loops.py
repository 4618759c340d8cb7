"""The compiled loops of convolutions of bf16 operands in the tiles of `amx`.

As in `columns`, everything is an address (int64) or a size; distances are in bytes. Images and
gradients are rounded once, and from then on two neighbouring channels are one number:
`walk_columns` gathers pairs as it gathers float32, and where `s` describes such images its `c`
counts pairs. An odd last channel is paired with zero.

    u     (panels, depth, PANEL)            pairs of weights: panels of output channels, depth a
                                            multiple of STEP with zeros at the end; the last panel
                                            may be TILE wide
    t     (chunks, k/16, steps, 16, STEP)   pairs of pixels of an output's gradient, transposed
    sums  (parts, taps, c/32, k, PANEL)     those of a weight gradient, transposed
"""

from __future__ import annotations

import numba

from .amx import (
    PANEL,
    STEP,
    TILE,
    close_tiles,
    interleave_rows,
    multiply_tiles,
    open_tiles,
    pair_square,
    pair_tile,
    transpose_tile,
)
from .bf16 import pair_vectors, round_vector
from .columns import clear_numbers, copy_rows, walk_columns
from .finish import finish_numbers
from .microkernel import round_up
from .simd import read_address, write_address

__all__ = ["convolve", "finish_weight_gradient", "pack_transposed", "pack_weights"]
__all__ += ["round_images", "scatter_input_gradient", "sum_weight_gradient", "transpose_gradients"]


@numba.njit(cache=True, parallel=True)
def round_images(x, to, rows, count, to_row, workers):
    """Rows of `count` numbers as rows of pairs of bf16: `to_row` bytes each, zeros at the end."""
    numbers = to_row // 2
    for worker in numba.prange(workers):
        for i in range(worker * rows // workers, (worker + 1) * rows // workers):
            for j in range(0, numbers, TILE):
                left = max(min(count - j, TILE), 0)
                pairs = min(numbers - j, TILE) // 2
                round_vector(to + i * to_row + 2 * j, x + 4 * (i * count + j), left, pairs)


@numba.njit(nogil=True)
def panel_row(columns, o):
    """Bytes of one row of the panel that begins at column `o`."""
    return 4 * min(PANEL, round_up(columns - o, TILE))


@numba.njit(cache=True, parallel=True)
def pack_weights(w, u, taps, c, k, depth, workers):
    """u (panels, depth, PANEL) from w (taps, c, k): pairs of inputs."""
    pairs = (c + 1) // 2
    panels = (k + PANEL - 1) // PANEL
    for worker in numba.prange(workers):
        for panel in range(worker * panels // workers, (worker + 1) * panels // workers):
            o = panel * PANEL
            row, block = panel_row(k, o), u + 4 * depth * o
            for line in range(depth):
                tap, i = line // pairs, line % pairs * 2
                for j in range(0, row // 4, TILE):
                    to = block + line * row + 4 * j
                    count = max(min(k - o - j, TILE), 0) if tap < taps else 0
                    clear_numbers(to, TILE)
                    if count:
                        x = w + 4 * ((tap * c + i) * k + o + j)
                        pair_vectors(to, x, x + 4 * k, count, count if i + 1 < c else 0)


@numba.njit(cache=True, parallel=True)
def pack_transposed(w, u, taps, c, k, depth, workers):
    """u (panels, depth, PANEL) from w (taps, c, k), taps in reverse order: pairs of outputs, panels
    of inputs.
    """
    pairs = (k + 1) // 2
    strips = (c + TILE - 1) // TILE
    for worker in numba.prange(workers):
        for strip in range(worker * strips // workers, (worker + 1) * strips // workers):
            i = strip * TILE
            o = i // PANEL * PANEL
            row, block = panel_row(c, o), u + 4 * (depth * o + i - o)
            for tap in range(taps):
                x = w + 4 * ((taps - 1 - tap) * c + i) * k
                for j in range(0, pairs, TILE):
                    to = block + (tap * pairs + j) * row
                    sizes = 4 * k, min(c - i, TILE), min(k - 2 * j, 2 * TILE)
                    pair_square(to, row, min(pairs - j, TILE), x + 8 * j, *sizes)
            for line in range(taps * pairs, depth):
                clear_numbers(block + line * row, TILE)


@numba.njit(cache=True, parallel=True)
def convolve(s, pointwise, x, u, y, finish, scratch, worker_bytes, workers, pixels):
    """y (n, p, q, k) from images x of pairs (n, h, w, c) and packed weights u, and what `finish`
    adds, `pixels` at a time.

    Each worker's scratch: columns (pixels, depth), a panel of outputs (pixels, PANEL).
    """
    used, count, y_row = s.r * s.s * s.c, s.n * s.p * s.q, 4 * s.k
    depth = round_up(used, STEP)
    a_row, chunks = 4 * depth, (count + pixels - 1) // pixels
    for worker in numba.prange(workers):
        columns = scratch + worker * worker_bytes
        block = columns + pixels * a_row
        open_tiles()
        for i in range(pixels if used < depth else 0):
            clear_numbers(columns + i * a_row + 4 * used, depth - used)
        for chunk in range(worker * chunks // workers, (worker + 1) * chunks // workers):
            first, last = chunk * pixels, min((chunk + 1) * pixels, count)
            whole, a = (last - first) % TILE == 0, columns
            if pointwise and whole and used == depth:
                a = x + a_row * first
            else:
                walk_columns(s, x, columns, a_row, first, last, False)
            for o in range(0, s.k, PANEL):
                width = min(PANEL, s.k - o)
                place = y + y_row * first + 4 * o
                to, row = place, y_row
                if not whole or width % TILE:
                    to, row = block, 4 * PANEL
                sizes = depth, a_row, TILE * a_row, 4 * STEP, row
                multiply_tiles(False, last - first, width, a, u + 4 * depth * o, to, *sizes)
                if to == block:
                    copy_rows(place, y_row, block, row, last - first, width)
                if finish.bias:
                    for pixel in range(first, last):
                        finish_numbers(finish, y, o, pixel * s.k + o, width)
        close_tiles()


@numba.njit(cache=True, parallel=True)
def scatter_input_gradient(s, g, u, dx, scratch, worker_bytes, workers, pixels):
    """dx (n, h, w, c) from gradients g of pairs (n·p·q + TILE, depth) and the packed transposed
    weights u. Each worker has whole images. Its scratch: columns (pixels, r·s·c).
    """
    columns_row, count = 4 * round_up(s.r * s.s * s.c, TILE), s.p * s.q
    depth, numbers = round_up((s.k + 1) // 2, STEP), s.h * s.w * s.c
    for worker in numba.prange(workers):
        columns = scratch + worker * worker_bytes
        open_tiles()
        image = worker * s.n // workers  # the next to be cleared
        end = (worker + 1) * s.n // workers * count
        for first in range(image * count, end, pixels):
            last = min(first + pixels, end)
            while image * count < last:
                clear_numbers(dx + 4 * image * numbers, numbers)
                image += 1
            for o in range(0, s.r * s.s * s.c, PANEL):
                sizes = depth, 4 * depth, 4 * depth * TILE, 4 * STEP, columns_row
                width = min(PANEL, s.r * s.s * s.c - o)
                a, b = g + 4 * depth * first, u + 4 * depth * o
                multiply_tiles(False, last - first, width, a, b, columns + 4 * o, *sizes)
            walk_columns(s, dx, columns, columns_row, first, last, True)
        close_tiles()


@numba.njit(cache=True, parallel=True)
def transpose_gradients(g, t, count, k, pixels, workers):
    """t (chunks, k/16, pixels/32, 16, 16) from g (count, k): `pixels` to a chunk."""
    strips, steps = (k + TILE - 1) // TILE, pixels // (2 * STEP)
    items = (count + 2 * STEP - 1) // (2 * STEP)
    for worker in numba.prange(workers):
        for item in range(worker * items // workers, (worker + 1) * items // workers):
            chunk, step, first = item // steps, item % steps, item * 2 * STEP
            rows = min(count - first, 2 * STEP)
            for strip in range(strips):
                to = t + 4 * TILE * STEP * ((chunk * strips + strip) * steps + step)
                x, left = g + 4 * (first * k + strip * TILE), min(k - strip * TILE, TILE)
                pair_tile(to, x, 4 * k, rows, left)


@numba.njit(nogil=True)
def find_pixels(s, image, zeros, table, first, last, i, j):
    """A table of addresses: where the output pixels first … last - 1 see their tap (i, j), or
    `zeros` where that is outside of the image.
    """
    pixel_bytes = 4 * s.c
    n, rest = first // (s.p * s.q), first % (s.p * s.q)
    p, q = rest // s.q, rest % s.q
    for pixel in range(last - first):
        y = p * s.down - s.top + i * s.row_step
        x = q * s.across - s.left + j * s.column_step
        inside = 0 <= y < s.h and 0 <= x < s.w
        place = image + pixel_bytes * ((n * s.h + y) * s.w + x) if inside else zeros
        write_address(table + 8 * pixel, place)
        q += 1
        if q == s.q:
            q, p = 0, p + 1
            if p == s.p:
                p, n = 0, n + 1


@numba.njit(nogil=True)
def gather_pairs(table, pixels, zeros, panels, panel_bytes, c):
    """Panels of 32 channels, (pixels/2, PANEL) each, from the pixels in the table: pairs of pixels,
    up to a multiple of 2·STEP pixels.
    """
    for pixel in range(0, round_up(pixels, 2 * STEP), 2):
        x = read_address(table + 8 * pixel) if pixel < pixels else zeros
        y = read_address(table + 8 * (pixel + 1)) if pixel + 1 < pixels else zeros
        to = panels + 2 * PANEL * pixel
        for i in range(0, c, TILE):
            interleave_rows(to + i // TILE * panel_bytes, x + 4 * i, y + 4 * i, min(c - i, TILE))


@numba.njit(cache=True, parallel=True)
def sum_weight_gradient(s, x, t, sums, scratch, worker_bytes, parts, divisions, pixels):
    """sums (parts, taps, c/32, k, PANEL) of images x of pairs and transposed gradients t, `pixels`
    at a time: each of the parts x divisions workers has its chunks and its taps.

    Each worker's scratch: addresses (pixels), a row of zeros, panels (c/32, pixels/2, PANEL).
    """
    count, taps, blocks = s.n * s.p * s.q, s.r * s.s, (s.c + TILE - 1) // TILE
    k, chunks = round_up(s.k, TILE), (count + pixels - 1) // pixels
    a_down = 2 * pixels * TILE
    for worker in numba.prange(parts * divisions):
        part, division = worker // divisions, worker % divisions
        table = scratch + worker * worker_bytes
        zeros = table + 8 * pixels
        panels = zeros + 4 * TILE * blocks
        clear_numbers(zeros, TILE * blocks)
        open_tiles()
        begin = part * chunks // parts
        for chunk in range(begin, (part + 1) * chunks // parts):
            first, last = chunk * pixels, min((chunk + 1) * pixels, count)
            depth, a = round_up(last - first, 2 * STEP) // 2, t + 2 * pixels * k * chunk
            for tap in range(division * taps // divisions, (division + 1) * taps // divisions):
                find_pixels(s, x, zeros, table, first, last, tap // s.s, tap % s.s)
                gather_pairs(table, last - first, zeros, panels, 2 * PANEL * pixels, s.c)
                for i in range(blocks):
                    to = sums + 4 * PANEL * k * ((part * taps + tap) * blocks + i)
                    sizes = depth, 4 * STEP, a_down, 4 * TILE * STEP, 4 * PANEL
                    b = panels + 2 * PANEL * pixels * i
                    multiply_tiles(chunk > begin, k, PANEL, a, b, to, *sizes)
        close_tiles()


@numba.njit(cache=True, parallel=True)
def finish_weight_gradient(sums, dw, taps, c, k, parts, workers):
    """dw (taps, c, k): the sums of the first part, plus those of the second, …"""
    across, down = (k + TILE - 1) // TILE, (c + TILE - 1) // TILE
    blocks, items = (c + PANEL - 1) // PANEL, taps * across * down
    for worker in numba.prange(workers):
        for item in range(worker * items // workers, (worker + 1) * items // workers):
            tap, i, o = item // (across * down), item // across % down * TILE, item % across * TILE
            to = dw + 4 * ((tap * c + i) * k + o)
            for part in range(parts):
                place = (part * taps + tap) * blocks + i // PANEL
                x = sums + 4 * PANEL * (place * across * TILE + o) + 4 * (i % PANEL)
                sizes = min(c - i, TILE), min(k - o, TILE)
                transpose_tile(to, 4 * k, *sizes, x, 4 * PANEL, int(part > 0))
