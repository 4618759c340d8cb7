"""Convolutions with any window, stride, padding and dilation: the columns of a few pixels at a
time, times the weights.

A thread gathers the columns (im2col) of some 48 output pixels into its cache and multiplies them
with packed weights right away, so that the columns never see memory. 1x1 windows that take every
pixel read the image itself. The product is our own (`microkernel`): on so few rows a BLAS spends
much of its time on packing. `direct_loops` has the compiled loops; here are the functions that take
arrays.

Results do not depend on the number of threads, by the rules of `winograd`: outputs and images are
whole, and weight gradients are sums over fixed parts.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from . import direct_loops as loops
from .direct_loops import BLOCK, CHANNELS, ROWS, WIDTH, Windows
from .finish import NOTHING, Finish, prepare_finish
from .im2col import Pair, output_size
from .memory import empty, threads, workspace

__all__ = ["convolve", "convolve_input_gradient", "convolve_weight_gradient"]

PIXELS = 4 * ROWS  # at a time, forward
CACHE = 1 << 18  # numbers: columns of a weight gradient's chunk
SUMS = 4  # parts of a weight gradient …
LARGE_SUMS = 2  # … or so many where a part's sums are
LARGE = 1 << 18  # numbers


def _round_up(count: int, step: int) -> int:
    return -(-count // step) * step


def _at(a: np.ndarray) -> int:
    return a.ctypes.data


def _windows(
    x: tuple[int, ...], w: tuple[int, ...], stride: Pair, padding: Pair, dilation: Pair
) -> Windows:
    (n, h, width, c), (r, s, _, k) = x, w
    p = output_size(h, r, stride[0], padding[0], dilation[0])
    q = output_size(width, s, stride[1], padding[1], dilation[1])
    return Windows(n, h, width, c, p, q, k, r, s, *stride, *padding, *dilation)


def _is_pointwise(s: Windows) -> bool:
    """Whether the columns are the images themselves."""
    return (s.r, s.s, s.down, s.across, s.top, s.left) == (1, 1, 1, 1, 0, 0)


def convolve(
    x: np.ndarray,
    w: np.ndarray,
    b: Any = None,
    residual: Any = None,
    *,
    stride: Pair,
    padding: Pair,
    dilation: Pair,
    relu: bool = False,
    packed: dict[str, Any] | None = None,
) -> np.ndarray:
    """x (n, h, w, c), w (r, s, c, k) -> (n, p, q, k), float32; the others as in `conv.conv2d`."""
    s = _windows(x.shape, w.shape, stride, padding, dilation)
    finish, _kept = prepare_finish(s.k, b, residual, relu)
    return _convolve(x, w, s, False, finish, packed)


def _convolve(
    x: np.ndarray,
    w: np.ndarray,
    s: Windows,
    transposed: bool,
    finish: Finish = NOTHING,
    packed: dict[str, Any] | None = None,
) -> np.ndarray:
    x, w = np.ascontiguousarray(x), np.ascontiguousarray(w)
    y = empty((s.n, s.p, s.q, s.k), x.dtype)
    depth, k = s.r * s.s * s.c, _round_up(s.k, WIDTH)
    size = _round_up(PIXELS * (depth + BLOCK), 16)  # whole cache lines
    workers = threads()
    u = None if packed is None else packed.get("direct")
    if u is None:
        u = empty((depth * k,), x.dtype)
        loops.pack_weights(_at(w), _at(u), depth, s.k, transposed, workers)
    with workspace((workers, size), x.dtype) as scratch:
        places = _at(x), _at(u), _at(y), finish, _at(scratch), 4 * size
        loops.convolve(s, _is_pointwise(s), *places, workers, PIXELS)
    if packed is not None:
        packed["direct"] = u
    return y


def convolve_input_gradient(
    g: np.ndarray, w: np.ndarray, *, size: Pair, stride: Pair, padding: Pair, dilation: Pair
) -> np.ndarray:
    """g (n, p, q, k), w (r, s, c, k) -> dx (n, h, w, c) for images of `size` (h, w)."""
    n, (c, k) = len(g), w.shape[2:]
    s = _windows((n, *size, c), w.shape, stride, padding, dilation)
    if _is_pointwise(s):
        return _convolve(g, w, s._replace(c=k, k=c), True)
    g, w = np.ascontiguousarray(g), np.ascontiguousarray(w)
    dx = empty((n, *size, c), g.dtype)
    depth, workers = s.r * s.s * c, min(threads(), n)
    padded = _round_up(depth, WIDTH)
    numbers = _round_up(PIXELS * (k + padded), 16)
    with (
        workspace((k * padded,), g.dtype) as u,
        workspace((workers, numbers), g.dtype) as scratch,
    ):
        loops.pack_weights(_at(w), _at(u), k, depth, True, threads())
        loops.convolve_input_gradient(
            s, _at(g), _at(u), _at(dx), _at(scratch), 4 * numbers, workers, PIXELS
        )
    return dx


def convolve_weight_gradient(
    x: np.ndarray, g: np.ndarray, *, window: Pair, stride: Pair, padding: Pair, dilation: Pair
) -> np.ndarray:
    """x (n, h, w, c), g (n, p, q, k) -> (r, s, c, k)."""
    x, g = np.ascontiguousarray(x), np.ascontiguousarray(g)
    shape = (*window, x.shape[3], g.shape[3])
    s = _windows(x.shape, shape, stride, padding, dilation)
    dw = empty(shape, x.dtype)
    count, depth = s.n * s.p * s.q, _round_up(s.r * s.s * s.c, CHANNELS)
    k = _round_up(s.k, WIDTH)
    parts = min(SUMS if depth * k < LARGE else LARGE_SUMS, count)
    divisions = min(-(-threads() // parts), -(-k // BLOCK))
    # each chunk reads and writes the depth·k sums: let its pixels·depth columns be nearly as many
    pixels = max(min(k, CACHE // depth) // ROWS * ROWS, PIXELS)
    size = _round_up(pixels * (depth + k), 16)
    direct = _is_pointwise(s) and s.c % CHANNELS == 0
    with (
        workspace((parts, depth * k), x.dtype) as sums,
        workspace((parts * divisions, size), x.dtype) as scratch,
    ):
        loops.sum_weight_gradient(
            s, direct, _at(x), _at(g), _at(sums), _at(scratch), 4 * size, parts, divisions, pixels
        )
        loops.finish_weight_gradient(s, _at(sums), _at(dw), parts, threads())
    return dw
