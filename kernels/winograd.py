"""3x3 convolutions with stride 1 by Winograd's F(4x4, 3x3), and their two gradients.

A thread takes a chunk of tiles that stays in its cache through all three stages: transform the
images (36 planes of tiles x channels), multiply each plane with the transformed weights, transform
the products back. So memory sees the images once and the outputs once, and a fourth of the
multiplications of the definition remain. `winograd_transforms` has the algorithm, `winograd_loops`
the compiled loops; here are the functions that take arrays, and the sizes of chunks and scratch.

Results do not depend on the number of threads. Each output comes from one tile. A weight gradient
is a sum over tiles: those are cut into a fixed number of parts, each summed in order, and the parts
are added in order; with more threads than parts, a part's output channels are divided.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from . import winograd_deep as deep
from . import winograd_loops as loops
from .finish import NOTHING, Finish, prepare_finish
from .memory import empty, threads, workspace
from .winograd_loops import BLOCK, GAP, TILES
from .winograd_tiles import CHANNELS, TABLES, WIDTH, Shape, row_length

__all__ = ["convolve", "convolve_input_gradient", "convolve_weight_gradient"]

Pair = tuple[int, int]

CACHE = 120_000  # numbers: a chunk's transformed images and products should fit so much cache
SUMS = 4  # parts of a weight gradient …
LARGE_SUMS = 2  # … or so many where one part's sums would not fit any cache
LARGE = 1 << 15  # c·k
DEEP = 1 << 17  # c·k from which on a thread takes some channels of all tiles …
FEW = 1 << 18  # … if these have no more than so many numbers, 1/36 of what is then in the cache


def _round_up(count: int, step: int) -> int:
    return -(-count // step) * step


def _planes(numbers: int) -> int:
    return 36 * (numbers + GAP)


def _shape(images: tuple[int, ...], k: int, padding: Pair) -> Shape:
    n, h, w, c = images
    p, q = h + 2 * padding[0] - 2, w + 2 * padding[1] - 2
    return Shape(n, h, w, c, p, q, k, *padding, -(-p // 4), -(-q // 4))


def _chunk(numbers_a_tile: int, least: int, tiles: int) -> int:
    """How many tiles to take at a time, a multiple of TILES: what fits into the cache, but not
    fewer than `least` unless there are no more.
    """
    fit = CACHE // numbers_a_tile // TILES * TILES
    return min(max(fit, _round_up(least, TILES)), _round_up(tiles, TILES))


def _deep(s: Shape) -> bool:
    """Whether a thread takes some channels of all tiles, not all channels of some tiles."""
    return s.c * s.k >= DEEP and s.n * s.down * s.across * (s.c + s.k) <= FEW


def convolve(
    x: np.ndarray,
    w: np.ndarray,
    b: Any = None,
    residual: Any = None,
    *,
    padding: Pair,
    relu: bool = False,
    packed: dict[str, Any] | None = None,
) -> np.ndarray:
    """x (n, h, w, c), w (3, 3, c, k) -> (n, p, q, k), float32; the others as in `conv.conv2d`."""
    s = _shape(x.shape, w.shape[3], padding)
    finish, _kept = prepare_finish(s.k, b, residual, relu)
    return _convolve(x, w, s, False, finish, packed)


def convolve_input_gradient(
    g: np.ndarray, w: np.ndarray, total: Any = None, *, padding: Pair
) -> np.ndarray:
    """g (n, p, q, k), w (3, 3, c, k), total or None -> total + (n, h, w, c): a convolution with the
    rotated windows.
    """
    inner = (2 - padding[0], 2 - padding[1])
    s = _shape(g.shape, w.shape[2], inner)
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
    if _deep(s):
        _convolve_deep(x, w, y, s, rotated, finish)
        return y
    c, k, workers = _round_up(s.c, CHANNELS), _round_up(s.k, WIDTH), threads()
    plane, planes = max(row_length(s.c), min(k, BLOCK)), 37 if k <= BLOCK else 72
    tiles = _chunk(planes * plane, 2 * TILES, s.n * s.down * s.across)
    size = _round_up(TABLES + c + k + planes * (tiles * plane + GAP), 16)  # whole cache lines
    u = None if packed is None else packed.get("winograd")
    with workspace((workers, max(size, 9 * WIDTH * WIDTH)), x.dtype) as scratch:
        if u is None:
            u = empty((_planes(s.c * k),), x.dtype)
            loops.transform_weights(_at(w), _at(u), s.c, s.k, rotated, _at(scratch), workers)
        places = _at(x), _at(u), _at(y), finish, _at(scratch), scratch.strides[0]
        loops.convolve(s, *places, workers, tiles)
    if packed is not None:
        packed["winograd"] = u
    return y


def _convolve_deep(
    x: np.ndarray, w: np.ndarray, y: np.ndarray, s: Shape, rotated: bool, finish: Finish
) -> None:
    c, k, workers = _round_up(s.c, CHANNELS), _round_up(s.k, WIDTH), threads()
    plane = _round_up(s.n * s.down * s.across, TILES) * max(row_length(s.c), BLOCK) + GAP
    size = TABLES + max(c, k) + 9 * WIDTH * WIDTH + _planes(s.c * BLOCK) + 36 * plane
    with (
        workspace((36 * plane,), x.dtype) as v,
        workspace((workers, _round_up(size, 16)), x.dtype) as scratch,
    ):
        tiles, rest = (_at(v), 4 * plane), (_at(scratch), scratch.strides[0], workers)
        deep.transform_tiles(s, _at(x), 0, *tiles, 0, 0, *rest)
        deep.convolve(s, *tiles, _at(w), rotated, _at(y), finish, *rest)


def convolve_weight_gradient(x: np.ndarray, g: np.ndarray, *, padding: Pair) -> np.ndarray:
    """x (n, h, w, c), g (n, p, q, k) -> (3, 3, c, k)."""
    x, g = np.ascontiguousarray(x), np.ascontiguousarray(g)
    s = _shape(x.shape, g.shape[3], padding)
    dw = empty((3, 3, s.c, s.k), x.dtype)
    if _deep(s):
        _weight_gradient_deep(x, g, dw, s)
        return dw
    c, k, count = _round_up(s.c, CHANNELS), _round_up(s.k, WIDTH), s.n * s.down * s.across
    parts = min(SUMS if s.c * s.k < LARGE else LARGE_SUMS, count)
    divisions = min(-(-threads() // parts), -(-k // BLOCK))
    # each chunk reads and writes the 36·c·k sums: let its own 36·tiles·(c + k) numbers be as many
    tiles = _chunk(36 * (c + k), max(2 * TILES, c * k // (c + k)), -(-count // parts))
    size = TABLES + max(c, k) + _planes(tiles * row_length(s.c)) + _planes(tiles * row_length(s.k))
    with (
        workspace((parts, _planes(c * k)), x.dtype) as du,
        workspace((parts * divisions, _round_up(size, 16)), x.dtype) as scratch,
    ):
        loops.sum_weight_gradient(
            s, _at(x), _at(g), _at(du), _at(scratch), scratch.strides[0], parts, divisions, tiles
        )
        loops.finish_weight_gradient(s, _at(du), _at(dw), parts, threads())
    return dw


def _weight_gradient_deep(x: np.ndarray, g: np.ndarray, dw: np.ndarray, s: Shape) -> None:
    c, k, workers = _round_up(s.c, CHANNELS), _round_up(s.k, WIDTH), threads()
    count = s.n * s.down * s.across
    v_plane, m_plane = count * row_length(s.c) + GAP, count * row_length(s.k) + GAP
    size = max(TABLES + max(c, k), _planes(BLOCK * BLOCK))
    with (
        workspace((36 * v_plane,), x.dtype) as v,
        workspace((36 * m_plane,), x.dtype) as m,
        workspace((workers, _round_up(size, 16)), x.dtype) as scratch,
    ):
        tiles = _at(v), 4 * v_plane, _at(m), 4 * m_plane
        rest = _at(scratch), scratch.strides[0], workers
        deep.transform_tiles(s, _at(x), _at(g), *tiles, *rest)
        deep.weight_gradient(s, *tiles, _at(dw), *rest)


def _at(a: Any) -> int:
    return a.ctypes.data
