"""The tiles of a Winograd convolution: where their pixels are, and a chunk of them transformed.

A tile's pixels are listed in a table of addresses. Pixels outside an image are read from a row of
zeros and written to a row that nobody reads, so that a tile at an edge differs only in its table.

Transforms wait for memory more than they compute. While one tile is transformed, the pixels of the
next are fetched, or of the third from there if there are few channels; and large outputs, which
nobody reads before the whole layer is done, are written past the caches where that is possible: so
the lines that they overwrite are never read. On two cores of an AMD EPYC (Zen 4) both together make
a convolution of ResNet-18 at batch 128 1.0 to 1.2 times as fast, those of ResNet-20 about 1.1 to
1.25 times. Outputs of a few megabytes wait in the last cache for their reader instead: four layers
of 32 channels, 16x16 pixels, with BatchNorm and their gradients then take 0.9 times as long on an
EPYC with 32 MB of it (Zen 5).

Everything is an address (int64) or a size; distances between addresses are in bytes, sizes in
numbers.
"""

from __future__ import annotations

from typing import NamedTuple

import numba

from . import winograd_transforms as transforms
from .finish import finish_numbers
from .isa import ISA
from .microkernel import row_length
from .simd import LINE, vector_function
from .winograd_schemes import SCHEMES

__all__ = ["CHANNELS", "TABLES", "TILES", "WIDTH", "Shape", "tile_count"]
__all__ += ["transform_gradients", "transform_images", "transform_products"]

WIDTH = ISA.width or 1  # channels in a vector
CHANNELS = ISA.channels
TILES = 12  # tile counts are padded to a multiple of this, and so to one of the products' rows
LONGEST = max(scheme.image**2 for scheme in SCHEMES)
SLOTS = 4  # tables of so many addresses: a tile's, and of those that come next
TABLES = 2 * SLOTS * LONGEST  # numbers
SLOT = 8 * LONGEST  # bytes
NEAR = 64  # channels, of one tile or several, whose transforms take as long as the memory


# each transform for a whole vector of channels, and for the first `count` of them
_image = vector_function(WIDTH)(transforms.image_tile)
_image_end = vector_function(WIDTH, optional=True)(transforms.image_tile)
_output = vector_function(WIDTH)(transforms.output_tile)
_output_end = vector_function(WIDTH, optional=True)(transforms.output_tile)
_keep, _stream = vector_function(WIDTH), vector_function(WIDTH, streams=True)
_output_keep, _output_stream = _keep(transforms.output_line), _stream(transforms.output_line)
_biased_keep, _biased_stream = _keep(transforms.biased_line), _stream(transforms.biased_line)
_added_keep, _added_stream = _keep(transforms.added_line), _stream(transforms.added_line)
_summed_keep, _summed_stream = _keep(transforms.summed_line), _stream(transforms.summed_line)
_gradient = vector_function(WIDTH)(transforms.gradient_tile)
_gradient_end = vector_function(WIDTH, optional=True)(transforms.gradient_tile)
_pixels_in = vector_function(WIDTH)(transforms.list_inputs)
_pixels_out = vector_function(WIDTH)(transforms.list_outputs)


class Shape(NamedTuple):
    """A convolution: images (n, h, w, c) -> (n, p, q, k) with `top` and `left` rows of padding; an
    output image is `down` x `across` tiles. The scheme of that number has so many `planes`, and
    `side` x `side` outputs a tile. Outputs go past the caches where they can and `stream` says so.
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
    scheme: int
    planes: int
    side: int
    stream: bool


@numba.njit(nogil=True)
def tile_count(s):
    """How many tiles all images have."""
    return s.n * s.down * s.across


@numba.njit(nogil=True)
def _place(s, tile):
    """A tile's image, and its row and column among the image's tiles."""
    image = tile // (s.down * s.across)
    rest = tile - image * s.down * s.across
    i = rest // s.across
    return image, i, rest - i * s.across


@numba.njit(nogil=True)
def _list_inputs(s, x, tile, outside, table):
    """Fill a table with the addresses of a tile's pixels of the images."""
    n, i, j = _place(s, tile)
    image = x + 4 * n * s.h * s.w * s.c
    _pixels_in(s.scheme, table, image, i, j, s.top, s.left, s.h, s.w, 4 * s.c, outside)


@numba.njit(nogil=True)
def _list_outputs(s, y, tile, outside, table):
    """Fill a table with the addresses of a tile's outputs."""
    n, i, j = _place(s, tile)
    image = y + 4 * n * s.p * s.q * s.k
    _pixels_out(s.scheme, table, image, i, j, s.p, s.q, 4 * s.k, outside)


@numba.njit(nogil=True)
def _slot(tables, tile):
    """The table of a tile."""
    return tables + tile % SLOTS * SLOT


@numba.njit(nogil=True)
def _reach(channels):
    """How many tiles ahead to fetch pixels of so many channels."""
    return max(1, min(NEAR // channels, SLOTS - 1))


@numba.njit(nogil=True)
def transform_images(s, x, tables, zeros, v, plane, first, last):
    """v = Bᵀ d B of the image tiles first … last - 1."""
    row = 4 * row_length(s.c)
    whole = s.c // WIDTH * WIDTH
    reach = _reach(s.c)
    for t in range(first, first + reach):
        _list_inputs(s, x, t, zeros, _slot(tables, t))
    for t in range(first, last):
        table, ahead = _slot(tables, t), _slot(tables, t + reach)
        _list_inputs(s, x, t + reach, zeros, ahead)
        to = v + (t - first) * row
        for c in range(0, whole, WIDTH):
            _image(s.scheme, table, ahead, 4 * c, to + 4 * c, plane)
        if whole < s.c:
            _image_end(s.scheme, table, ahead, 4 * whole, to + 4 * whole, plane, s.c - whole)


@numba.njit(nogil=True)
def transform_gradients(s, g, tables, zeros, m, plane, first, last, start, stop):
    """m = A dy Aᵀ of the output tiles first … last - 1, channels start … stop - 1."""
    row = 4 * row_length(s.k)
    whole = min(stop, s.k // WIDTH * WIDTH)
    reach = _reach(stop - start)
    for t in range(first, first + reach):
        _list_outputs(s, g, t, zeros, _slot(tables, t))
    for t in range(first, last):
        table, ahead = _slot(tables, t), _slot(tables, t + reach)
        _list_outputs(s, g, t + reach, zeros, ahead)
        to = m + (t - first) * row
        for k in range(start, whole, WIDTH):
            _gradient(s.scheme, table, ahead, 4 * k, to + 4 * k, plane)
        if whole < stop:
            _gradient_end(s.scheme, table, ahead, 4 * whole, to + 4 * whole, plane, s.k - whole)


@numba.njit(nogil=True)
def _whole_lines(s, y):
    """Whether all outputs are whole cache lines, and no tile sticks out of an image."""
    inside = s.p % s.side == 0 and s.q % s.side == 0
    return inside and y % LINE == 4 * s.k % LINE == 0


@numba.njit(nogil=True)
def _line_products(s, m, plane, row, tables, y, finish, first, last, start, stop):
    """The same where outputs are whole cache lines, finished on the way; or with the sums (groups,
    3, k) of each TILES tiles.
    """
    relu, residual, sums_row = int(finish.relu), finish.residual - y, 4 * s.k
    reach = _reach(stop - start)
    for t in range(first, first + reach):
        _list_outputs(s, y, t, y, _slot(tables, t))
    for t in range(first, last):
        table, ahead = _slot(tables, t), _slot(tables, t + reach)
        _list_outputs(s, y, t + reach, y, ahead)
        for k in range(start, stop, LINE // 4):
            line, bias, at = m + (t - first) * row + 4 * (k - start), finish.bias + 4 * k, 4 * k
            sums, new = finish.sums + t // TILES * 3 * sums_row + at, int(t % TILES == 0)
            if finish.residual and s.stream:
                _added_stream(s.scheme, line, plane, table, ahead, at, relu, bias, residual)
            elif finish.residual:
                _added_keep(s.scheme, line, plane, table, ahead, at, relu, bias, residual)
            elif finish.bias and s.stream:
                _biased_stream(s.scheme, line, plane, table, ahead, at, relu, bias)
            elif finish.bias:
                _biased_keep(s.scheme, line, plane, table, ahead, at, relu, bias)
            elif finish.sums and s.stream:
                _summed_stream(s.scheme, line, plane, table, ahead, at, sums, sums_row, new)
            elif finish.sums:
                _summed_keep(s.scheme, line, plane, table, ahead, at, sums, sums_row, new)
            elif s.stream:
                _output_stream(s.scheme, line, plane, table, ahead, at)
            else:
                _output_keep(s.scheme, line, plane, table, ahead, at)


@numba.njit(nogil=True)
def transform_products(s, m, plane, row, table, unread, y, finish, first, last, start, width):
    """y = Aᵀ m A for the output tiles first … last - 1, channels start … start + width - 1, and
    what `finish` adds.
    """
    stop = min(start + width, s.k)
    if _whole_lines(s, y):
        _line_products(s, m, plane, row, table, y, finish, first, last, start, stop)
        return
    whole = stop // WIDTH * WIDTH
    for t in range(first, last):
        _list_outputs(s, y, t, unread, table)
        tile = m + (t - first) * row
        for k in range(start, whole, WIDTH):
            _output(s.scheme, tile + 4 * (k - start), plane, table, 4 * k)
        if whole < stop:
            rest = tile + 4 * (whole - start)
            _output_end(s.scheme, rest, plane, table, 4 * whole, stop - whole)
        if not finish.bias:
            continue
        n, down, across = _place(s, t)
        for i in range(s.side * down, min(s.side * (down + 1), s.p)):
            for j in range(s.side * across, min(s.side * (across + 1), s.q)):
                pixel = (n * s.p + i) * s.q + j
                finish_numbers(finish, y, start, pixel * s.k + start, stop - start)
