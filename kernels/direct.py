"""Convolutions with any window, stride, padding and dilation: the columns of a few pixels at a
time, times the weights.

A thread gathers the columns (im2col) of some 96 output pixels into its cache and multiplies them
with packed weights right away, so that the columns never see memory. 1x1 windows that take every
pixel read the image itself. The product is our own (`microkernel`): on so few rows a BLAS spends
much of its time on packing. `direct_loops` has the compiled loops, over the `columns`; here are the
functions that take arrays.

Groups of inputs are such convolutions side by side. Where they are narrower than a vector, several
make a bundle: one convolution with the groups' weights as blocks on the diagonal, zero elsewhere.
It fills the vectors, so that the zeros cost nothing.

Results do not depend on the number of threads, by the rules of `winograd`: outputs and images are
whole, and weight gradients are sums over fixed parts.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from . import direct_loops as loops
from .bf16 import uses_bf16
from .columns import WIDTH, Windows, is_pointwise, list_windows
from .direct_loops import BLOCK, CHANNELS, ROWS
from .finish import NOTHING, Finish, prepare_finish
from .im2col import Pair
from .memory import address, empty, threads, workspace, zeros
from .microkernel import round_up, row_length

__all__ = ["convolve", "convolve_input_gradient", "convolve_weight_gradient"]

PIXELS = 8 * ROWS  # at a time …
MANY_PIXELS = 32 * ROWS  # … or so many in a weight gradient of many sums: each chunk reads them all
SUMS = 4  # parts of a weight gradient …
LARGE_SUMS = 2  # … or so many where a part's sums are
LARGE = 1 << 19  # numbers
PAGE = 1 << 10  # numbers: rows at such distances share a few cache sets, and are copied


def _bundles(groups: int, k: int) -> int:
    """How many bundles of as many groups as have outputs for one vector."""
    most = max(WIDTH // (k // groups), 1)
    return next(groups // m for m in range(most, 0, -1) if groups % m == 0)


def _diagonal(bundled: np.ndarray, w: np.ndarray, groups: int) -> Iterator[tuple[Any, Any]]:
    """The places of the same weights, one group of each bundle at a time, in `bundled` (bundles, r,
    s, c, k) and in w (r, s, c/groups, k).
    """
    bundles, r, s, c, k = bundled.shape
    each = groups // bundles
    blocks = bundled.reshape(bundles, r, s, each, c // each, each, k // each)
    parts = w.reshape(r, s, c // each, bundles, each, k // each)
    for i in range(each):
        yield blocks[:, :, :, i, :, i], parts[..., i, :].transpose(3, 0, 1, 2, 4)


def _bundle(w: np.ndarray, groups: int, bundles: int) -> np.ndarray:
    """w (r, s, c/groups, k) -> (bundles, r, s, c, k) of each bundle, zero between its groups."""
    if groups == 1:
        return np.ascontiguousarray(w)[None]
    r, s, c, k = w.shape
    bundled = zeros((bundles, r, s, c * groups // bundles, k // bundles), w.dtype)
    for place, part in _diagonal(bundled, w, groups):
        place[...] = part
    return bundled


def convolve(
    x: np.ndarray,
    w: np.ndarray,
    b: Any = None,
    residual: Any = None,
    *,
    stride: Pair,
    padding: Pair,
    dilation: Pair,
    groups: int,
    relu: bool = False,
    packed: dict[str, Any] | None = None,
) -> np.ndarray:
    """x (n, h, w, c), w (r, s, c/groups, k) -> (n, p, q, k), float32; the others as in
    `conv.conv2d`.
    """
    bundles = _bundles(groups, w.shape[3])
    s = list_windows(x.shape, w.shape, stride, padding, dilation, bundles)
    finish, _kept = prepare_finish(w.shape[3], b, residual, relu)
    return _convolve(x, w, s, groups, False, finish, packed)


def _convolve(
    x: np.ndarray,
    w: np.ndarray,
    s: Windows,
    groups: int,
    transposed: bool,
    finish: Finish = NOTHING,
    packed: dict[str, Any] | None = None,
) -> np.ndarray:
    x = np.ascontiguousarray(x)
    y = empty((s.n, s.p, s.q, s.groups * s.k), x.dtype)
    depth, k = s.r * s.s * s.c, round_up(s.k, WIDTH)
    size = round_up(PIXELS * (depth + BLOCK), 16)  # whole cache lines
    workers = threads()
    pairs = uses_bf16(x.dtype)
    form = "direct, bf16" if pairs else "direct"
    u = None if packed is None else packed.get(form)
    if u is None:
        u, w = empty((s.groups * depth * k,), x.dtype), _bundle(w, groups, s.groups)
        loops.pack_weights(address(w), address(u), s.groups, depth, s.k, transposed, workers)
        if pairs:
            loops.pair_weights(address(u), s.groups, depth, s.k, workers)
    with workspace((workers, size), x.dtype) as scratch:
        places = address(x), address(u), address(y), finish, address(scratch), 4 * size
        loops.convolve(s, is_pointwise(s), pairs, *places, workers, PIXELS)
    if packed is not None:
        packed[form] = u
    return y


def convolve_input_gradient(
    g: np.ndarray,
    w: np.ndarray,
    *,
    size: Pair,
    stride: Pair,
    padding: Pair,
    dilation: Pair,
    groups: int,
) -> np.ndarray:
    """g (n, p, q, k), w (r, s, c/groups, k) -> dx (n, h, w, c) for images of `size` (h, w)."""
    images, bundles = (len(g), *size, w.shape[2] * groups), _bundles(groups, w.shape[3])
    s = list_windows(images, w.shape, stride, padding, dilation, bundles)
    if is_pointwise(s):
        return _convolve(g, w, s._replace(c=s.k, k=s.c), groups, True)
    g, w = np.ascontiguousarray(g), _bundle(w, groups, bundles)
    dx = empty(images, g.dtype)
    depth, workers = s.r * s.s * s.c, min(threads(), s.n)
    padded, pairs = round_up(depth, WIDTH), uses_bf16(g.dtype)
    numbers = round_up(PIXELS * (s.k + padded), 16)
    with (
        workspace((s.groups * s.k * padded,), g.dtype) as u,
        workspace((workers, numbers), g.dtype) as scratch,
    ):
        loops.pack_weights(address(w), address(u), s.groups, s.k, depth, True, threads())
        if pairs:
            loops.pair_weights(address(u), s.groups, s.k, depth, threads())
        loops.convolve_input_gradient(
            s,
            pairs,
            address(g),
            address(u),
            address(dx),
            address(scratch),
            4 * numbers,
            workers,
            PIXELS,
        )
    return dx


def convolve_weight_gradient(
    x: np.ndarray,
    g: np.ndarray,
    *,
    window: Pair,
    stride: Pair,
    padding: Pair,
    dilation: Pair,
    groups: int,
) -> np.ndarray:
    """x (n, h, w, c), g (n, p, q, k) -> (r, s, c/groups, k)."""
    x, g = np.ascontiguousarray(x), np.ascontiguousarray(g)
    shape = (*window, x.shape[3] // groups, g.shape[3])
    bundles = _bundles(groups, shape[3])
    s = list_windows(x.shape, shape, stride, padding, dilation, bundles)
    bundled = empty((bundles, *window, s.c, s.k), x.dtype)
    count, depth = s.n * s.p * s.q, round_up(s.r * s.s * s.c, CHANNELS)
    k = round_up(s.k, WIDTH)
    numbers = s.groups * depth * k
    parts = min(SUMS if numbers < LARGE else LARGE_SUMS, count)
    workers = threads()
    divisions = min(-(-workers // parts), s.groups * -(-k // BLOCK))
    pixels = PIXELS if numbers < LARGE else MANY_PIXELS
    row = row_length(depth)
    size = round_up(pixels * (row + BLOCK), 16)
    direct = is_pointwise(s) and s.c % CHANNELS == 0 and x.shape[3] % PAGE != 0
    with (
        workspace((parts, numbers), x.dtype) as sums,
        workspace((workers, size), x.dtype) as scratch,
    ):
        places = address(x), address(g), address(sums), address(scratch), 4 * size, 4 * row
        pairs = uses_bf16(x.dtype)
        loops.sum_weight_gradient(s, direct, pairs, *places, parts, divisions, pixels, workers)
        loops.finish_weight_gradient(s, address(sums), address(bundled), parts, workers)
    if groups == 1:
        return bundled[0]
    dw = empty(shape, x.dtype)
    for part, place in _diagonal(bundled, dw, groups):
        place[...] = part
    return dw
