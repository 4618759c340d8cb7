"""3x3 convolutions with stride 1 or 2 by Winograd's minimal filtering, and their two gradients.

A thread takes a chunk of tiles that stays in its cache through all three stages: transform the
images (36 or 25 planes of tiles x channels), multiply each plane with the transformed weights,
transform the products back. So memory sees the images once and the outputs once, and of the
multiplications of the definition a fourth remains, or two thirds with stride 2. `winograd_schemes`
has the algorithm, `winograd_loops` the compiled loops; here are the functions that take arrays, and
the sizes of chunks and scratch.

Results do not depend on the number of threads. Each output comes from one tile. A weight gradient
is a sum over tiles: those are cut into a fixed number of parts, each summed in order, and the parts
are added in order; with more threads than parts, a part's output channels are divided.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from typing import Any

import numpy as np

from . import winograd_deep as deep
from . import winograd_loops as loops
from .finish import NOTHING, Finish, prepare_finish
from .im2col import Pair, output_size
from .memory import SMALLEST, address, empty, threads, workspace
from .microkernel import DEPTH, round_up, row_length
from .simd import LINE, STREAM
from .winograd_loops import BLOCK, GAP
from .winograd_schemes import DENSE, SPREAD, STRIDED, Scheme
from .winograd_tiles import CHANNELS, TABLES, TILES, WIDTH, Shape

__all__ = ["backward_shape", "chunk_sizes", "convolve", "convolve_and_sum"]
__all__ += ["convolve_input_gradient", "convolve_weight_gradient", "forward_shape"]
__all__ += ["gradient_sizes", "has_whole_lines", "is_deep"]

CACHE = 120_000  # numbers: a chunk's transformed images and products should fit so much cache
SUMS = 4  # parts of a weight gradient …
FEW_SUMS = 2  # … or so many where one part's sums would not fit any cache, or it has few tiles
LARGE = 1 << 15  # c·k
CHUNKS = 4  # chunks that a part should have
DEEP = 1 << 17  # c·k from which on a thread takes some channels of all tiles …
FEW = 1 << 18  # … if these have no more than so many numbers in a plane


def _planes(s: Shape, numbers: int) -> int:
    return s.planes * (numbers + GAP)


def _shape(
    scheme: Scheme, images: tuple[int, ...], size: Iterable[int], k: int, padding: Pair
) -> Shape:
    (n, h, w, c), (p, q) = images, size
    down, across = -(-p // scheme.output), -(-q // scheme.output)
    tile = scheme.number, scheme.planes, scheme.output
    stream = 4 * n * p * q * k >= STREAM
    return Shape(n, h, w, c, p, q, k, *padding, down, across, *tile, stream)


@lru_cache(maxsize=1024)
def forward_shape(images: tuple[int, ...], k: int, stride: Pair, padding: Pair) -> Shape:
    """The convolution of images (n, h, w, c)."""
    size = [output_size(images[1 + i], 3, stride[i], padding[i], 1) for i in (0, 1)]
    return _shape(DENSE if stride == (1, 1) else STRIDED, images, size, k, padding)


@lru_cache(maxsize=1024)
def backward_shape(
    outputs: tuple[int, ...], size: Pair, c: int, stride: Pair, padding: Pair
) -> Shape:
    """The convolution that the input gradient is, from outputs (n, p, q, k)."""
    scheme, before = (DENSE, 2) if stride == (1, 1) else (SPREAD, 1)
    return _shape(scheme, outputs, size, c, (before - padding[0], before - padding[1]))


def _chunk(numbers_a_tile: int, least: int, tiles: int) -> int:
    """How many tiles to take at a time, a multiple of TILES: what fits into the cache, but not
    fewer than `least` unless there are no more.
    """
    fit = CACHE // numbers_a_tile // TILES * TILES
    return min(max(fit, round_up(least, TILES)), round_up(tiles, TILES))


@lru_cache(maxsize=1024)
def chunk_sizes(s: Shape) -> tuple[int, int, int]:
    """Tiles of a chunk, numbers of a worker's scratch, and numbers of the transformed windows."""
    c, k = round_up(s.c, CHANNELS), round_up(s.k, WIDTH)
    plane = max(row_length(s.c), min(k, BLOCK))
    planes = s.planes + (1 if k <= BLOCK else s.planes)
    tiles = _chunk(planes * plane, 2 * TILES, s.n * s.down * s.across)
    size = TABLES + c + k + planes * (tiles * plane + GAP)
    return tiles, round_up(max(size, 9 * WIDTH * WIDTH), LINE // 4), _planes(s, s.c * k)


@lru_cache(maxsize=1024)
def gradient_sizes(s: Shape, workers: int) -> tuple[int, int, int, int, int]:
    """Parts of the sum, divisions of each, tiles of a chunk, numbers of a worker's scratch and of
    a part's sums.
    """
    c, k, count = round_up(s.c, CHANNELS), round_up(s.k, WIDTH), s.n * s.down * s.across
    # to read and write c·k sums a plane should cost no more than to make tiles·(c + k) numbers:
    # so many tiles to a chunk, and some chunks to a part
    even = max(1, c * k // (c + k))
    few = s.c * s.k >= LARGE or count < SUMS * CHUNKS * even
    parts = min(FEW_SUMS if few else SUMS, count)
    divisions = min(-(-workers // parts), -(-k // BLOCK))
    tiles = _chunk(s.planes * (c + k), max(2 * TILES, even), -(-count // parts))
    images, gradients = (_planes(s, tiles * row_length(channels)) for channels in (s.c, s.k))
    size = round_up(TABLES + max(c, k) + images + gradients, LINE // 4)
    return parts, divisions, tiles, size, _planes(s, c * k)


def is_deep(s: Shape) -> bool:
    """Whether a thread takes some channels of all tiles, not all channels of some tiles."""
    return s.c * s.k >= DEEP and s.n * s.down * s.across * (s.c + s.k) <= FEW


def has_whole_lines(s: Shape) -> bool:
    """Whether `convolve_and_sum` serves: no tile sticks out of an image, all outputs are whole
    cache lines, and the array will begin with one.
    """
    inside = s.p % s.side == 0 and s.q % s.side == 0 and 4 * s.k % LINE == 0
    return inside and 4 * s.n * s.p * s.q * s.k >= SMALLEST


def convolve(
    x: np.ndarray,
    w: np.ndarray,
    b: Any = None,
    residual: Any = None,
    *,
    stride: Pair,
    padding: Pair,
    relu: bool = False,
    packed: dict[str, Any] | None = None,
) -> np.ndarray:
    """x (n, h, w, c), w (3, 3, c, k) -> (n, p, q, k), float32; the others as in `conv.conv2d`."""
    s = forward_shape(x.shape, w.shape[3], stride, padding)
    finish, _kept = prepare_finish(s.k, b, residual, relu)
    return _convolve(x, w, s, False, finish, packed)


def convolve_and_sum(
    x: np.ndarray, w: np.ndarray, *, stride: Pair, padding: Pair
) -> tuple[np.ndarray, np.ndarray, int]:
    """z, as of `convolve`; sums (groups, 3, k) for its moments, each of so many rows of k outputs;
    and that number. The sums are those of `moments.merge_groups`.
    """
    s = forward_shape(x.shape, w.shape[3], stride, padding)
    sums = empty((-(-s.n * s.down * s.across // TILES), 3, s.k), x.dtype)
    z = _convolve(x, w, s, False, NOTHING._replace(sums=address(sums)))
    return z, sums, TILES * s.side**2


def convolve_input_gradient(
    g: np.ndarray, w: np.ndarray, total: Any = None, *, size: Pair, stride: Pair, padding: Pair
) -> np.ndarray:
    """g (n, p, q, k), w (3, 3, c, k), total or None -> total + (n, h, w, c) for images of `size`
    (h, w): a convolution with the rotated windows. With stride 2, the padding must be 1.
    """
    s = backward_shape(g.shape, size, w.shape[2], stride, padding)
    finish, _kept = prepare_finish(s.k, None, total, False)
    return _convolve(g, w, s, True, finish)


def _convolve(
    x: np.ndarray,
    w: np.ndarray,
    s: Shape,
    rotated: bool,
    finish: Finish = NOTHING,
    packed: dict[str, Any] | None = None,
) -> np.ndarray:
    x, w = np.ascontiguousarray(x), np.ascontiguousarray(w)
    y = empty((s.n, s.p, s.q, s.k), x.dtype)
    if is_deep(s):
        _convolve_deep(x, w, y, s, rotated, finish)
        return y
    workers, (tiles, size, windows) = threads(), chunk_sizes(s)
    form = "winograd" if s.scheme == DENSE.number else "polyphase"
    u = None if packed is None else packed.get(form)
    with workspace((workers, size), x.dtype) as scratch:
        known = u is not None
        u = u if known else empty((windows,), x.dtype)
        loops.convolve(
            *(s, address(x), address(w), rotated, address(u), known, address(y), finish),
            *(address(scratch), 4 * size, workers, tiles),
        )
    if packed is not None:
        packed[form] = u
    return y


def _convolve_deep(
    x: np.ndarray, w: np.ndarray, y: np.ndarray, s: Shape, rotated: bool, finish: Finish
) -> None:
    c, k, workers = round_up(s.c, CHANNELS), round_up(s.k, WIDTH), threads()
    count = round_up(s.n * s.down * s.across, TILES)
    plane = count * row_length(s.c) + GAP
    size = TABLES + max(c, k) + 9 * WIDTH * WIDTH
    size += _planes(s, min(s.c, DEPTH) * BLOCK) + _planes(s, count * BLOCK)
    with (
        workspace((s.planes * plane,), x.dtype) as v,
        workspace((workers, round_up(size, 16)), x.dtype) as scratch,
    ):
        tiles, rest = (address(v), 4 * plane), (address(scratch), scratch.strides[0], workers)
        deep.transform_tiles(s, address(x), 0, *tiles, 0, 0, *rest)
        deep.convolve(s, *tiles, address(w), rotated, address(y), finish, *rest)


def convolve_weight_gradient(
    x: np.ndarray, g: np.ndarray, *, stride: Pair, padding: Pair
) -> np.ndarray:
    """x (n, h, w, c), g (n, p, q, k) -> (3, 3, c, k)."""
    x, g = np.ascontiguousarray(x), np.ascontiguousarray(g)
    s = forward_shape(x.shape, g.shape[3], stride, padding)
    dw = empty((3, 3, s.c, s.k), x.dtype)
    if is_deep(s):
        _weight_gradient_deep(x, g, dw, s)
        return dw
    workers = threads()
    parts, divisions, tiles, size, sums = gradient_sizes(s, workers)
    with (
        workspace((parts, sums), x.dtype) as du,
        workspace((workers, size), x.dtype) as scratch,
    ):
        places = address(x), address(g), address(du), address(dw), address(scratch)
        loops.weight_gradient(s, *places, 4 * size, parts, divisions, tiles, workers)
    return dw


def _weight_gradient_deep(x: np.ndarray, g: np.ndarray, dw: np.ndarray, s: Shape) -> None:
    c, k, workers = round_up(s.c, CHANNELS), round_up(s.k, WIDTH), threads()
    count = s.n * s.down * s.across
    v_plane, m_plane = count * row_length(s.c) + GAP, count * row_length(s.k) + GAP
    size = max(TABLES + max(c, k), _planes(s, BLOCK * BLOCK))
    with (
        workspace((s.planes * v_plane,), x.dtype) as v,
        workspace((s.planes * m_plane,), x.dtype) as m,
        workspace((workers, round_up(size, 16)), x.dtype) as scratch,
    ):
        tiles = address(v), 4 * v_plane, address(m), 4 * m_plane
        rest = address(scratch), scratch.strides[0], workers
        deep.transform_tiles(s, address(x), address(g), *tiles, *rest)
        deep.weight_gradient(s, *tiles, address(dw), *rest)
