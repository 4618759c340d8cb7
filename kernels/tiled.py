"""Convolutions of bf16 operands on CPUs with AMX: any window, stride, padding and dilation.

As in `direct`, a thread gathers the columns of some output pixels into its cache and multiplies
them right away; but the images are rounded first, so that half the bytes are gathered, and the
product is that of `amx`. `tiled_loops` has the compiled loops; here are the functions that take
arrays.

The gradient of the inputs is a convolution with rotated weights where the stride is 1. Elsewhere
its columns are added to the images. The gradient of the weights is computed transposed, a tap at a
time, because the matrix unit wants the pixels of its left operand side by side: turning round the
gradients (k numbers a pixel) is less work than turning round the columns (r·s·c).

Results do not depend on the number of threads: outputs and images are whole, and weight gradients
are sums over fixed parts.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from . import tiled_loops as loops
from .amx import PANEL, STEP, TILE
from .columns import Windows, is_pointwise, list_windows
from .finish import NOTHING, Finish, prepare_finish
from .im2col import Pair
from .memory import address, empty, threads, workspace
from .microkernel import round_up

__all__ = ["convolve", "convolve_input_gradient", "convolve_weight_gradient"]

CACHE = 1 << 18  # pairs: columns that stay in a core's second cache
MOST_PIXELS = 256  # at a time, forward
GRADIENT_PIXELS = 1024  # at a time, for weights: the panels of one tap
SUMS = 4  # parts of a weight gradient …
LARGE_SUMS = 2  # … or so many where a part's sums are
LARGE = 1 << 18  # numbers


def _rounded(x: np.ndarray, step: int = 1) -> Any:
    """The rounded rows of a contiguous x (…, c): pairs, a multiple of `step` in each, and some
    rows that nobody has written.
    """
    rows, c = x.size // x.shape[-1], x.shape[-1]
    pairs = round_up((c + 1) // 2, step)
    to = empty(((rows + TILE) * pairs,), x.dtype)
    loops.round_images(address(x), address(to), rows, c, 4 * pairs, threads())
    return to


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
    s = list_windows(x.shape, w.shape, stride, padding, dilation)
    finish, _kept = prepare_finish(s.k, b, residual, relu)
    return _convolve(x, w, s, False, finish, packed)


def _convolve(
    x: np.ndarray,
    w: np.ndarray,
    s: Windows,
    rotated: bool,
    finish: Finish = NOTHING,
    packed: dict[str, Any] | None = None,
) -> np.ndarray:
    x, w = np.ascontiguousarray(x), np.ascontiguousarray(w)
    y = empty((s.n, s.p, s.q, s.k), x.dtype)
    pairs = (s.c + 1) // 2
    depth = round_up(s.r * s.s * pairs, STEP)
    pixels = min(max(CACHE // depth // PANEL, 1) * PANEL, MOST_PIXELS)
    size = round_up(pixels * (depth + PANEL), TILE)
    u = None if packed is None else packed.get("tiled")
    if u is None:
        u = empty((depth * round_up(s.k, TILE),), x.dtype)
        if rotated:
            sizes = s.r * s.s, s.k, s.c, depth
            loops.pack_transposed(address(w), address(u), *sizes, threads())
        else:
            sizes = s.r * s.s, s.c, s.k, depth
            loops.pack_weights(address(w), address(u), *sizes, threads())
    halves = _rounded(x)
    with workspace((threads(), size), x.dtype) as scratch:
        places = address(halves), address(u), address(y), finish, address(scratch), 4 * size
        loops.convolve(s._replace(c=pairs), is_pointwise(s), *places, threads(), pixels)
    if packed is not None:
        packed["tiled"] = u
    return y


def convolve_input_gradient(
    g: np.ndarray, w: np.ndarray, *, size: Pair, stride: Pair, padding: Pair, dilation: Pair
) -> np.ndarray:
    """g (n, p, q, k), w (r, s, c, k) -> dx (n, h, w, c) for images of `size` (h, w)."""
    g, w = np.ascontiguousarray(g), np.ascontiguousarray(w)
    images = len(g), *size, w.shape[2]
    s = list_windows(images, w.shape, stride, padding, dilation)
    if stride == (1, 1):
        top, left = (s.r - 1) * s.row_step - s.top, (s.s - 1) * s.column_step - s.left
        sizes = {"h": s.p, "w": s.q, "c": s.k, "p": s.h, "q": s.w, "k": s.c}
        return _convolve(g, w, s._replace(top=top, left=left, **sizes), True)
    dx, columns = empty(images, g.dtype), s.r * s.s * s.c
    depth, workers = round_up((s.k + 1) // 2, STEP), min(threads(), s.n)
    row = round_up(columns, TILE)
    pixels = min(max(CACHE // row // PANEL, 1) * PANEL, MOST_PIXELS)
    u, halves = empty((depth * row,), g.dtype), _rounded(g, STEP)
    loops.pack_transposed(address(w), address(u), 1, columns, s.k, depth, threads())
    with workspace((workers, pixels * row), g.dtype) as scratch:
        places = address(halves), address(u), address(dx), address(scratch), scratch.strides[0]
        loops.scatter_input_gradient(s, *places, workers, pixels)
    return dx


def convolve_weight_gradient(
    x: np.ndarray, g: np.ndarray, *, window: Pair, stride: Pair, padding: Pair, dilation: Pair
) -> np.ndarray:
    """x (n, h, w, c), g (n, p, q, k) -> (r, s, c, k)."""
    x, g = np.ascontiguousarray(x), np.ascontiguousarray(g)
    dw = empty((*window, x.shape[3], g.shape[3]), x.dtype)
    s = list_windows(x.shape, dw.shape, stride, padding, dilation)
    count, taps, k = s.n * s.p * s.q, s.r * s.s, round_up(s.k, TILE)
    numbers = taps * round_up(s.c, PANEL) * k
    most = SUMS if numbers < LARGE else LARGE_SUMS
    pixels = min(round_up(-(-count // most), 2 * STEP), GRADIENT_PIXELS)
    chunks = -(-count // pixels)
    parts = min(most, chunks)
    divisions = min(-(-threads() // parts), taps)
    pairs = (s.c + 1) // 2
    size = 2 * pixels + round_up(pairs, TILE) + round_up(s.c, PANEL) * pixels // 2
    halves = _rounded(x)
    with (
        workspace((chunks * pixels // 2 * k,), x.dtype) as t,
        workspace((parts, numbers), x.dtype) as sums,
        workspace((parts * divisions, round_up(size, TILE)), x.dtype) as scratch,
    ):
        loops.transpose_gradients(address(g), address(t), count, s.k, pixels, threads())
        places = address(halves), address(t), address(sums), address(scratch), scratch.strides[0]
        loops.sum_weight_gradient(s._replace(c=pairs), *places, parts, divisions, pixels)
        sizes = taps, s.c, s.k, parts
        loops.finish_weight_gradient(address(sums), address(dw), *sizes, threads())
    return dw
