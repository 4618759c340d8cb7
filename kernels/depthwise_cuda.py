"""Depthwise convolutions on the GPU: the launches of depthwise.cu. One for the output, with what
follows it, one for dx, and two for dw: sums over parts of the images, and the sums of the parts.

Products of matrices would have one column. Memory is the limit: the kernels read each number of the
images once from memory, and r·s - 1 times from the cache.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from .dispatch import array_module
from .im2col import Pair, conv_shape
from .launch import Source, flat_grid, pixel_grid
from .memory import empty, workspace

__all__ = ["convolve", "convolve_input_gradient", "convolve_weight_gradient"]

SOURCE = Source("depthwise.cu")
BLOCKS = 2048  # that sum a weight gradient, about
LEAST = 4  # lines that are summed as one part, at least


def _contiguous(*arrays: Any) -> tuple[Any, ...]:
    xp = array_module(arrays[0])
    return tuple(a if a is None else xp.ascontiguousarray(a) for a in arrays)


def convolve(
    x: Any,
    w: Any,
    b: Any = None,
    residual: Any = None,
    *,
    stride: Pair,
    padding: Pair,
    dilation: Pair,
    relu: bool,
) -> Any:
    """x (n, h, w, c), w (r, s, 1, c), b (c,), residual (n, p, q, c) -> (n, p, q, c)."""
    x, w, b, residual = _contiguous(x, w, b, residual)
    y = empty(conv_shape(x, w, stride, padding, dilation), x.dtype, like=x)
    _, p, q, c = y.shape
    grid, block = pixel_grid(len(x) * p * q, c)
    SOURCE.launch(
        *("depthwise", grid, block, x, w, b, residual, y, len(x) * p * q, *x.shape[1:], p, q),
        *(*w.shape[:2], *stride, *padding, *dilation, int(relu)),
    )
    return y


def convolve_input_gradient(
    g: Any,
    w: Any,
    total: Any = None,
    *,
    size: Pair,
    stride: Pair,
    padding: Pair,
    dilation: Pair,
) -> Any:
    """g (n, p, q, c), w (r, s, 1, c) -> dx (n, h, w, c) for images of `size` (h, w), plus `total`
    where it is given.
    """
    g, w, total = _contiguous(g, w, total)
    n, p, q, c = g.shape
    dx = empty((n, *size, c), g.dtype, like=g)
    pixels = n * size[0] * size[1]
    grid, block = pixel_grid(pixels, c)
    SOURCE.launch(
        *("depthwise_input", grid, block, g, w, total, dx, pixels, *size, c, p, q),
        *(*w.shape[:2], *stride, *padding, *dilation),
    )
    return dx


def convolve_weight_gradient(
    x: Any, g: Any, *, window: Pair, stride: Pair, padding: Pair, dilation: Pair
) -> Any:
    """x (n, h, w, c), g (n, p, q, c) -> dw (r, s, 1, c)."""
    x, g = _contiguous(x, g)
    n, p, q, c = g.shape
    dw, taps, lines = empty((*window, 1, c), x.dtype, like=x), window[0] * window[1], n * p
    (_, tiles), block = pixel_grid(1, c)
    size = max(LEAST, -(-lines * tiles * taps // BLOCKS))  # by the shape alone
    count = -(-lines // size)
    with workspace((count, taps, c), np.float64, like=x) as parts:
        SOURCE.launch(
            *("depthwise_weight", (count, tiles, taps), block, x, g, parts, lines, size),
            *(*x.shape[1:], p, q, window[1], *stride, *padding, *dilation),
        )
        SOURCE.launch("depthwise_sum", *flat_grid(dw.size), parts, dw, count, dw.size)
    return dw
