"""The compiled loops of the Winograd convolution: chunks of tiles through transform, product and
transform back.

Everything is an address (int64) or a size, so that each loop is compiled once. Distances between
addresses are in bytes, sizes in numbers. Three arrays belong to a chunk of `tiles` tiles:

    v  (planes, tiles, c)          transformed images; rows of `row_length(c)`
    m  (planes, tiles, BLOCK)      their products with one block of output channels; or, in the
       (planes, tiles, k)          weight gradient, the transformed gradients of the outputs
    u  (planes, blocks, c, BLOCK)  transformed weights; the last or only block is narrower, a
                                   multiple of WIDTH

with GAP numbers between the planes, as many as the scheme has.
"""

from __future__ import annotations

import numba

from . import winograd_transforms as transforms
from .isa import ISA
from .microkernel import make_product, round_up, row_length
from .simd import add_vectors, finish_streams, read_float, vector_function, write_float
from .tasks import chunks, runs, share, share_runs, tasks
from .winograd_tiles import (
    CHANNELS,
    TABLES,
    TILES,
    WIDTH,
    tile_count,
    transform_gradients,
    transform_images,
    transform_products,
)

__all__ = ["BLOCK", "GAP", "add_parts", "block_width", "convolve", "convolve_tiles"]
__all__ += ["fence", "finish_block", "finish_window", "multiply_planes", "plane_bytes"]
__all__ += ["short_product", "sum_tiles", "transform_rows", "transform_weights"]
__all__ += ["weight_gradient"]

BLOCK = ISA.block or 1  # output channels of one product
GAP = 144  # numbers between two planes: at powers of two they would share a few cache sets

tall_product = make_product(WIDTH, ISA.rows or (1,))
short_product = make_product(WIDTH, ISA.short_rows or (1,))

# each transform for a whole vector of channels, and for the first `count` of them
_weight = vector_function(WIDTH)(transforms.weight_tile)
_weight_end = vector_function(WIDTH, optional=True)(transforms.weight_tile)
_window = vector_function(WIDTH)(transforms.weight_gradient_tile)
_window_end = vector_function(WIDTH, optional=True)(transforms.weight_gradient_tile)
_turn = vector_function(WIDTH)(transforms.turn_square)
_add = vector_function(WIDTH)(add_vectors)
fence = vector_function(WIDTH)(finish_streams)


@numba.njit(nogil=True)
def block_width(block, k):
    """How many of k output channels, rounded up to vectors, are in a block."""
    return min(BLOCK, round_up(k, WIDTH) - block * BLOCK)


@numba.njit(nogil=True)
def plane_bytes(numbers):
    """The distance of two planes of so many numbers."""
    return 4 * (numbers + GAP)


@numba.njit(nogil=True)
def multiply_planes(s, add, count, channels, block, v, v_plane, u, u_plane, m, m_plane):
    """m (+)= v @ u of `count` tiles, so many channels, and one block of outputs."""
    width, v_row = block_width(block, s.k), 4 * row_length(s.c)
    m_row = 4 * block_width(0, s.k)
    for i in range(s.planes):
        tall_product(
            add, count, width // WIDTH, v + i * v_plane, u + i * u_plane, m + i * m_plane,
            channels, v_row, 4, 4 * width, m_row,
        )  # fmt: skip


@numba.njit(nogil=True)
def finish_block(s, m, plane, table, unread, y, finish, first, last, block):
    """The outputs of a block of the tiles first … last - 1, from their products."""
    width, row = block_width(block, s.k), 4 * block_width(0, s.k)
    transform_products(
        s, m, plane, row, table, unread, y, finish, first, last, block * BLOCK, width
    )


@numba.njit(nogil=True)
def _turn_windows(w, c, k, first_in, first_out, to):
    """Rotated windows of WIDTH x WIDTH channels, inputs and outputs exchanged: to (9, in, out) from
    w (9, out, in) of c outputs and k inputs. Channels beyond the last are zero.
    """
    for tap in range(9):
        window, place = w + 4 * (8 - tap) * c * k, to + 4 * tap * WIDTH * WIDTH
        if first_out + WIDTH <= c and first_in + WIDTH <= k:
            _turn(window + 4 * (first_out * k + first_in), 4 * k, place)
            continue
        for o in range(first_out, first_out + WIDTH):
            for i in range(first_in, first_in + WIDTH):
                inside = o < c and i < k
                value = read_float(window + 4 * (o * k + i)) if inside else 0.0
                write_float(place + 4 * ((i - first_in) * WIDTH + o - first_out), value)


@numba.njit(nogil=True)
def transform_rows(s, w, u, plane, rotated, square, first, block):
    """u = G g Gᵀ for WIDTH input channels from `first` on and a block of outputs; `u` is the first
    number of the block.
    """
    c, k, start, end = s.c, s.k, block * BLOCK, min(first + WIDTH, s.c)
    width = block_width(block, k)
    if rotated:
        for o in range(start, start + width, WIDTH):
            _turn_windows(w, k, c, first, o, square)
            for i in range(first, end):
                to, place = u + 4 * (i * width + o - start), square + 4 * (i - first) * WIDTH
                _weight(s.scheme, place, 4 * WIDTH * WIDTH, to, plane)
        return
    for i in range(first, end):
        for o in range(start, start + width, WIDTH):
            to, place = u + 4 * (i * width + o - start), w + 4 * (i * k + o)
            if o + WIDTH <= k:
                _weight(s.scheme, place, 4 * c * k, to, plane)
            else:
                _weight_end(s.scheme, place, 4 * c * k, to, plane, k - o)


@numba.njit(cache=True, parallel=True)
def transform_weights(s, w, u, rotated, scratch, workers):
    """u = G g Gᵀ for windows w (9, c, k); with `rotated` for the input gradient's, w (9, k, c)
    turned by half and with inputs and outputs exchanged. Scratch of 9·WIDTH² numbers a worker.
    """
    plane = plane_bytes(s.c * round_up(s.k, WIDTH))
    blocks = (round_up(s.k, WIDTH) + BLOCK - 1) // BLOCK
    left = share((s.c + WIDTH - 1) // WIDTH * blocks, workers)
    for worker in numba.prange(workers):
        square = scratch + 4 * 9 * WIDTH * WIDTH * worker
        for item in tasks(left, worker):
            first, block = item // blocks * WIDTH, item % blocks
            place = u + 4 * block * BLOCK * s.c
            transform_rows(s, w, place, plane, rotated, square, first, block)


@numba.njit(nogil=True)
def convolve_tiles(s, x, u, y, finish, scratch, tiles, begin, end):
    """y (n, p, q, k) of the tiles begin … end - 1, `tiles` at a time, from images x and transformed
    windows u, and what `finish` adds.

    Scratch: tables, a row of zeros (c), a row nobody reads (k), m, v. Where m has all output
    channels, its plane takes the place of the plane of v before it.
    """
    c, k = round_up(s.c, CHANNELS), round_up(s.k, WIDTH)
    blocks = (k + BLOCK - 1) // BLOCK
    plane = plane_bytes(tiles * max(row_length(s.c), min(BLOCK, k)))
    u_plane = plane_bytes(s.c * k)
    zeros = scratch + 4 * TABLES
    unread = zeros + 4 * c
    m = unread + 4 * k
    v = m + (plane if blocks == 1 else s.planes * plane)
    for i in range(c):
        write_float(zeros + 4 * i, 0)
    for first in range(begin, end, tiles):
        last = min(first + tiles, end)
        transform_images(s, x, scratch, zeros, v, plane, first, last)
        for block in range(blocks):
            weights = u + 4 * block * BLOCK * s.c
            multiply_planes(
                s, False, last - first, s.c, block, v, plane, weights, u_plane, m, plane
            )
            finish_block(s, m, plane, scratch, unread, y, finish, first, last, block)
    fence()


@numba.njit(cache=True, parallel=True)
def convolve(s, x, w, rotated, u, known, y, finish, scratch, worker_bytes, workers, tiles):
    """y (n, p, q, k) from images x and windows w, and what `finish` adds; `tiles` a chunk. u is
    where the transformed windows go, or where they are if `known`. Each worker has its scratch.
    """
    if not known:
        transform_weights(s, w, u, rotated, scratch, workers)
    count = tile_count(s)
    left = share((count + TILES - 1) // TILES, workers)
    for worker in numba.prange(workers):
        place = scratch + worker * worker_bytes
        for begin, end in chunks(left, worker, tiles // TILES):
            last = min(end * TILES, count)
            convolve_tiles(s, x, u, y, finish, place, tiles, begin * TILES, last)


@numba.njit(nogil=True)
def finish_window(s, du, plane, dw, i, o):
    """dw = Gᵀ du G for one input channel and WIDTH outputs; `du` is their place."""
    to = dw + 4 * (i * s.k + o)
    if o + WIDTH <= s.k:
        _window(s.scheme, du, plane, to, 4 * s.c * s.k)
    else:
        _window_end(s.scheme, du, plane, to, 4 * s.c * s.k, s.k - o)


@numba.njit(cache=True, parallel=True)
def add_parts(s, du, dw, parts, workers):
    """dw (9, c, k) = Gᵀ (du of the first part + du of the second + …) G."""
    c, k = round_up(s.c, CHANNELS), round_up(s.k, WIDTH)
    plane = plane_bytes(c * k)
    left = share(s.c, workers)
    for worker in numba.prange(workers):
        for i in tasks(left, worker):
            for o in range(0, s.k, WIDTH):
                block = o // BLOCK
                width = block_width(block, s.k)
                place = du + 4 * (block * BLOCK * c + i * width + o - block * BLOCK)
                for more in range(s.planes, s.planes * parts):
                    _add(place + more % s.planes * plane, place + more * plane)
                finish_window(s, place, plane, dw, i, o)


@numba.njit(nogil=True)
def sum_tiles(s, x, g, du, add, scratch, tiles, begin, end, low, high):
    """du (planes, blocks, c, BLOCK), its blocks low … high - 1, over the tiles begin … end - 1, or
    added to what is there. Scratch: tables, a row of zeros (the larger of c and k), v, m.
    """
    c, k = round_up(s.c, CHANNELS), round_up(s.k, WIDTH)
    v_row, m_row = row_length(s.c), row_length(s.k)
    v_plane, m_plane = plane_bytes(tiles * v_row), plane_bytes(tiles * m_row)
    zeros = scratch + 4 * TABLES
    v = zeros + 4 * max(c, k)
    m = v + s.planes * v_plane
    for i in range(max(c, k)):
        write_float(zeros + 4 * i, 0)
    for first in range(begin, end, tiles):
        last = min(first + tiles, end)
        transform_images(s, x, scratch, zeros, v, v_plane, first, last)
        transform_gradients(
            s, g, scratch, zeros, m, m_plane, first, last, low * BLOCK, min(high * BLOCK, s.k)
        )
        for plane in range(s.planes):
            a = v + plane * v_plane
            for block in range(low, high):
                width = block_width(block, s.k)
                b = m + plane * m_plane + 4 * block * BLOCK
                to = du + plane * plane_bytes(c * k) + 4 * block * BLOCK * c
                sizes = last - first, 4, 4 * v_row, 4 * m_row, 4 * width
                short_product(add or first > begin, c, width // WIDTH, a, b, to, *sizes)


@numba.njit(cache=True, parallel=True)
def weight_gradient(s, x, g, du, dw, scratch, worker_bytes, parts, divisions, tiles, workers):
    """dw (9, c, k) from images x and output gradients g; du (parts, planes, blocks, c, BLOCK) gets
    the sums over the tiles of a part, `tiles` at a time.

    Each of the parts x divisions has its tiles and its blocks of output channels.
    """
    count, blocks = tile_count(s), (round_up(s.k, WIDTH) + BLOCK - 1) // BLOCK
    sums = s.planes * plane_bytes(round_up(s.c, CHANNELS) * round_up(s.k, WIDTH))
    longest = (count + parts - 1) // parts
    left = share_runs(parts * divisions, (longest + tiles - 1) // tiles)
    for worker in numba.prange(workers):
        place = scratch + worker * worker_bytes
        for item, first, last in runs(left, workers):
            part, division = item // divisions, item % divisions
            low, high = division * blocks // divisions, (division + 1) * blocks // divisions
            begin, end = part * count // parts, (part + 1) * count // parts
            end = min(begin + last * tiles, end)
            begin += first * tiles
            sum_tiles(s, x, g, du + part * sums, first > 0, place, tiles, begin, end, low, high)
    add_parts(s, du, dw, parts, workers)
