"""The compiled loops of the Winograd convolution: chunks of tiles through transform, product and
transform back.

Everything is an address (int64) or a size, so that each loop is compiled once. Distances between
addresses are in bytes, sizes in numbers. Three arrays belong to a chunk of `tiles` tiles:

    v  (36, tiles, c)          transformed images; c padded to a multiple of CHANNELS
    m  (36, tiles, BLOCK)      their products with one block of output channels; or, in the
       (36, tiles, k)          weight gradient, the transformed gradients of the outputs
    u  (36, blocks, c, BLOCK)  transformed weights; the last or only block is narrower, a multiple
                               of WIDTH

with GAP numbers between the planes. Pixels outside an image are read from a row of zeros and
written to a row that nobody reads, so that a tile at an edge differs only in its table of
addresses.
"""

from __future__ import annotations

from typing import NamedTuple

import numba

from . import winograd_transforms as transforms
from .finish import finish_numbers
from .isa import ISA
from .microkernel import make_product, round_up
from .simd import add_vectors, read_float, vector_function, write_address, write_float

__all__ = ["BLOCK", "CHANNELS", "GAP", "TABLES", "TILES", "WIDTH", "Shape", "block_width"]
__all__ += ["convolve", "finish_weight_gradient", "sum_weight_gradient", "transform_weights"]

WIDTH = ISA.width or 1  # channels in a vector
BLOCK = ISA.block or 1  # output channels of one product
CHANNELS = ISA.channels
TILES = 12  # tile counts are padded to a multiple of this, and so to one of the products' rows
GAP = 144  # numbers between two planes: at powers of two they would share a few cache sets
TABLES = 128  # numbers: a table of 36 addresses for reading and one of 16, after it
SECOND = 8 * 40  # bytes: where the second table begins

_tall_product = make_product(WIDTH, ISA.rows or (1,))
_short_product = make_product(WIDTH, ISA.short_rows or (1,))

# each transform for a whole vector of channels, and for the first `count` of them
_image = vector_function(WIDTH)(transforms.image_tile)
_image_end = vector_function(WIDTH, optional=True)(transforms.image_tile)
_weight = vector_function(WIDTH)(transforms.weight_tile)
_weight_end = vector_function(WIDTH, optional=True)(transforms.weight_tile)
_output = vector_function(WIDTH)(transforms.output_tile)
_output_end = vector_function(WIDTH, optional=True)(transforms.output_tile)
_gradient = vector_function(WIDTH)(transforms.gradient_tile)
_gradient_end = vector_function(WIDTH, optional=True)(transforms.gradient_tile)
_window = vector_function(WIDTH)(transforms.weight_gradient_tile)
_window_end = vector_function(WIDTH, optional=True)(transforms.weight_gradient_tile)
_add = vector_function(WIDTH)(add_vectors)


class Shape(NamedTuple):
    """A convolution: images (n, h, w, c) -> (n, p, q, k) with `top` and `left` rows of padding; an
    output image is `down` x `across` tiles.
    """

    n: int
    h: int
    w: int
    c: int
    p: int
    q: int
    k: int
    top: int
    left: int
    down: int
    across: int


@numba.njit(nogil=True)
def block_width(block, k):
    """How many of k output channels, rounded up to vectors, are in a block."""
    return min(BLOCK, round_up(k, WIDTH) - block * BLOCK)


@numba.njit(nogil=True)
def plane_bytes(numbers):
    """The distance of two planes of so many numbers."""
    return 4 * (numbers + GAP)


@numba.njit(nogil=True)
def _corner(s, tile):
    """A tile's image, and the row and column of its first output."""
    image = tile // (s.down * s.across)
    rest = tile - image * s.down * s.across
    i = rest // s.across
    return image, 4 * i, 4 * (rest - i * s.across)


@numba.njit(nogil=True)
def _list_pixels(table, size, image, top, left, h, w, channels, outside):
    """Fill a table with the addresses of size x size pixels of an image (h, w, channels)."""
    for i in range(size):
        for j in range(size):
            y, x = top + i, left + j
            inside = 0 <= y < h and 0 <= x < w
            pixel = image + 4 * channels * (y * w + x)
            write_address(table + 8 * (size * i + j), pixel if inside else outside)


@numba.njit(nogil=True)
def _transform_images(s, x, table, zeros, v, plane, first, last):
    """v = Bᵀ d B of the image tiles first … last - 1."""
    row = 4 * round_up(s.c, CHANNELS)
    whole = s.c // WIDTH * WIDTH
    for t in range(first, last):
        n, i, j = _corner(s, t)
        image = x + 4 * n * s.h * s.w * s.c
        _list_pixels(table, 6, image, i - s.top, j - s.left, s.h, s.w, s.c, zeros)
        to = v + (t - first) * row
        for c in range(0, whole, WIDTH):
            _image(table, 4 * c, to + 4 * c, plane)
        if whole < s.c:
            _image_end(table, 4 * whole, to + 4 * whole, plane, s.c - whole)


@numba.njit(nogil=True)
def _transform_gradients(s, g, table, zeros, m, plane, first, last, start, stop):
    """m = A dy Aᵀ of the output tiles first … last - 1, channels start … stop - 1."""
    row = 4 * round_up(s.k, WIDTH)
    whole = min(stop, s.k // WIDTH * WIDTH)
    for t in range(first, last):
        n, i, j = _corner(s, t)
        image = g + 4 * n * s.p * s.q * s.k
        _list_pixels(table, 4, image, i, j, s.p, s.q, s.k, zeros)
        to = m + (t - first) * row
        for k in range(start, whole, WIDTH):
            _gradient(table, 4 * k, to + 4 * k, plane)
        if whole < stop:
            _gradient_end(table, 4 * whole, to + 4 * whole, plane, s.k - whole)


@numba.njit(nogil=True)
def _transform_products(s, m, plane, row, table, unread, y, first, last, start, width):
    """y = Aᵀ m A for the output tiles first … last - 1, channels start … start + width - 1."""
    stop = min(start + width, s.k)
    whole = stop // WIDTH * WIDTH
    for t in range(first, last):
        n, i, j = _corner(s, t)
        image = y + 4 * n * s.p * s.q * s.k
        _list_pixels(table, 4, image, i, j, s.p, s.q, s.k, unread)
        tile = m + (t - first) * row
        for k in range(start, whole, WIDTH):
            _output(tile + 4 * (k - start), plane, table, 4 * k)
        if whole < stop:
            _output_end(tile + 4 * (whole - start), plane, table, 4 * whole, stop - whole)


@numba.njit(nogil=True)
def _finish_tiles(s, finish, y, first, last, start, width):
    """Bias, residual and ReLU of the output tiles first … last - 1, channels as above."""
    width = min(width, s.k - start)
    for t in range(first, last):
        n, top, left = _corner(s, t)
        for i in range(top, min(top + 4, s.p)):
            for j in range(left, min(left + 4, s.q)):
                pixel = (n * s.p + i) * s.q + j
                finish_numbers(finish, y, start, pixel * s.k + start, width)


@numba.njit(cache=True, parallel=True)
def convolve(s, x, u, y, finish, scratch, worker_bytes, workers, tiles):
    """y (n, p, q, k) from images x and transformed weights u, and what `finish` adds; `tiles` a
    chunk.

    Each worker's scratch: tables, a row of zeros (c), a row nobody reads (k), v, m.
    """
    c, k = round_up(s.c, CHANNELS), round_up(s.k, WIDTH)
    m_width = min(BLOCK, k)
    v_plane, m_plane = plane_bytes(tiles * c), plane_bytes(tiles * m_width)
    u_plane = plane_bytes(s.c * k)
    count = s.n * s.down * s.across
    chunks = (count + tiles - 1) // tiles
    for worker in numba.prange(workers):
        table = scratch + worker * worker_bytes
        zeros = table + 4 * TABLES
        unread = zeros + 4 * c
        v = unread + 4 * k
        m = v + 36 * v_plane
        for i in range(c):
            write_float(zeros + 4 * i, 0)
        for chunk in range(worker * chunks // workers, (worker + 1) * chunks // workers):
            first = chunk * tiles
            last = min(first + tiles, count)
            _transform_images(s, x, table, zeros, v, v_plane, first, last)
            for block in range((k + BLOCK - 1) // BLOCK):
                width = block_width(block, s.k)
                for plane in range(36):
                    a, b = v + plane * v_plane, u + plane * u_plane + 4 * block * BLOCK * s.c
                    _tall_product(
                        False, last - first, width // WIDTH, a, b, m + plane * m_plane,
                        s.c, 4 * c, 4, 4 * width, 4 * m_width,
                    )  # fmt: skip
                _transform_products(
                    s, m, m_plane, 4 * m_width, table + SECOND, unread, y, first, last,
                    block * BLOCK, width,
                )  # fmt: skip
                if finish.bias:
                    _finish_tiles(s, finish, y, first, last, block * BLOCK, width)


@numba.njit(nogil=True)
def _gather_rotated(w, c, k, first_in, first_out, to):
    """Rotated windows of WIDTH x WIDTH channels, inputs and outputs exchanged: to (9, in, out) from
    w (9, out, in) of c outputs and k inputs. Channels beyond the last are zero.
    """
    for tap in range(9):
        for o in range(first_out, first_out + WIDTH):
            for i in range(first_in, first_in + WIDTH):
                value = 0.0
                if o < c and i < k:
                    value = read_float(w + 4 * (((8 - tap) * c + o) * k + i))
                write_float(to + 4 * ((tap * WIDTH + i - first_in) * WIDTH + o - first_out), value)


@numba.njit(cache=True, parallel=True)
def transform_weights(w, u, c, k, rotated, scratch, workers):
    """u = G g Gᵀ for windows w (9, c, k); with `rotated` for the input gradient's, w (9, k, c)
    turned by half and with inputs and outputs exchanged. Scratch of 9·WIDTH² numbers a worker.
    """
    plane = plane_bytes(c * round_up(k, WIDTH))
    across = (k + WIDTH - 1) // WIDTH
    count = (c + WIDTH - 1) // WIDTH * across
    for worker in numba.prange(workers):
        square = scratch + 4 * 9 * WIDTH * WIDTH * worker
        for item in range(worker * count // workers, (worker + 1) * count // workers):
            first_in, first_out = item // across * WIDTH, item % across * WIDTH
            block = first_out // BLOCK
            width = block_width(block, k)
            if rotated:
                _gather_rotated(w, k, c, first_in, first_out, square)
            for i in range(first_in, min(first_in + WIDTH, c)):
                to = u + 4 * (block * BLOCK * c + i * width + first_out - block * BLOCK)
                if rotated:
                    row = square + 4 * (i - first_in) * WIDTH
                    _weight(row, 4 * WIDTH * WIDTH, to, plane)
                elif first_out + WIDTH <= k:
                    _weight(w + 4 * (i * k + first_out), 4 * c * k, to, plane)
                else:
                    start = w + 4 * (i * k + first_out)
                    _weight_end(start, 4 * c * k, to, plane, k - first_out)


@numba.njit(cache=True, parallel=True)
def sum_weight_gradient(s, x, g, du, scratch, worker_bytes, parts, divisions, tiles):
    """du (parts, 36, blocks, c, BLOCK): sums over the tiles of a part, `tiles` at a time.

    Each of the parts x divisions workers has its tiles and its blocks of output channels. Its
    scratch: tables, a row of zeros (the larger of c and k), v, m.
    """
    c, k = round_up(s.c, CHANNELS), round_up(s.k, WIDTH)
    v_plane, m_plane = plane_bytes(tiles * c), plane_bytes(tiles * k)
    u_plane = plane_bytes(c * k)
    count, blocks = s.n * s.down * s.across, (k + BLOCK - 1) // BLOCK
    for worker in numba.prange(parts * divisions):
        part, division = worker // divisions, worker % divisions
        low, high = division * blocks // divisions, (division + 1) * blocks // divisions
        table = scratch + worker * worker_bytes
        zeros = table + 4 * TABLES
        v = zeros + 4 * max(c, k)
        m = v + 36 * v_plane
        for i in range(max(c, k)):
            write_float(zeros + 4 * i, 0)
        begin, end = part * count // parts, (part + 1) * count // parts
        for first in range(begin, end, tiles):
            last = min(first + tiles, end)
            _transform_images(s, x, table, zeros, v, v_plane, first, last)
            _transform_gradients(
                s, g, table, zeros, m, m_plane, first, last, low * BLOCK, min(high * BLOCK, s.k)
            )
            for plane in range(36):
                a = v + plane * v_plane
                for block in range(low, high):
                    width = block_width(block, s.k)
                    b = m + plane * m_plane + 4 * block * BLOCK
                    to = du + (part * 36 + plane) * u_plane + 4 * block * BLOCK * c
                    sizes = last - first, 4, 4 * c, 4 * k, 4 * width
                    _short_product(first > begin, c, width // WIDTH, a, b, to, *sizes)


@numba.njit(cache=True, parallel=True)
def finish_weight_gradient(s, du, dw, parts, workers):
    """dw (9, c, k) = Gᵀ (du of the first part + du of the second + …) G."""
    c, k = round_up(s.c, CHANNELS), round_up(s.k, WIDTH)
    plane = plane_bytes(c * k)
    for worker in numba.prange(workers):
        for i in range(worker * s.c // workers, (worker + 1) * s.c // workers):
            for o in range(0, s.k, WIDTH):
                block = o // BLOCK
                width = block_width(block, s.k)
                place = du + 4 * (block * BLOCK * c + i * width + o - block * BLOCK)
                for more in range(36, 36 * parts):
                    _add(place + more % 36 * plane, place + more * plane)
                to = dw + 4 * (i * s.k + o)
                if o + WIDTH <= s.k:
                    _window(place, plane, to, 4 * s.c * s.k)
                else:
                    _window_end(place, plane, to, 4 * s.c * s.k, s.k - o)
