"""Convolution and its two gradients by products of a BLAS, a few images at a time.

The same products as the references in `conv`, but each thread gathers the columns of as few images
as stay in its cache, multiplies and stores them, group by group, and goes on. Where a 1x1 window
reads every pixel once, the images are the columns.

Results do not depend on the number of threads: chunks depend on shapes alone, an output belongs to
one of them, and weight gradients are sums over a fixed number of parts, added in order.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from .finish import finish_array
from .im2col import Pair, by_group, chunk_images, conv_shape, gather, needs_columns, scatter
from .memory import empty, workspace
from .parallel import for_each

__all__ = ["convolve", "convolve_input_gradient", "convolve_weight_gradient"]

# Bytes of columns at a time, so that they are still in cache when the product reads them.
CHUNK = 2 << 20
# Partial weight gradients, whatever the number of threads: the same sums in the same order.
SUMS = 4


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
) -> np.ndarray:
    """x (n, h, w, c), w (r, s, c/groups, k) -> (n, p, q, k), plus b (k,) and a residual like it,
    then max(·, 0) with `relu`.
    """
    y = empty(conv_shape(x, w, stride, padding, dilation), x.dtype)
    n, p, q, k = y.shape
    r, s, c, _ = w.shape
    x, matrices = np.ascontiguousarray(x), by_group(np.ascontiguousarray(w), groups)
    gathers = needs_columns((r, s), stride, padding, groups)
    chunks = chunk_images(n, p * q * r * s * c * x.itemsize, CHUNK)

    def convolve_chunk(i: int) -> None:
        chunk, out = x[chunks[i]], y[chunks[i]]
        if not gathers:
            np.matmul(chunk.reshape(-1, c), matrices[0], out=out.reshape(-1, k))
        else:
            parts = by_group(out, groups)
            with workspace((len(chunk), p, q, r, s, c), x.dtype) as columns:
                for group, (matrix, part) in enumerate(zip(matrices, parts)):
                    gather(chunk, columns, group * c, *stride, *padding, *dilation)
                    np.matmul(columns.reshape(-1, len(matrix)), matrix, out=part)
        finish_array(out, b, residual if residual is None else residual[chunks[i]], relu)

    for_each(convolve_chunk, len(chunks))
    return y


def convolve_input_gradient(
    g: np.ndarray,
    w: np.ndarray,
    total: Any = None,
    *,
    size: Pair,
    stride: Pair,
    padding: Pair,
    dilation: Pair,
    groups: int,
) -> np.ndarray:
    """g (n, p, q, k), w (r, s, c/groups, k) -> dx (n, h, w, c) for images of `size` (h, w), plus
    `total`, like dx, where it is given.
    """
    n, p, q, _ = g.shape
    r, s, c, _ = w.shape
    g, matrices = np.ascontiguousarray(g), by_group(np.ascontiguousarray(w), groups)
    dx = empty((n, *size, c * groups), g.dtype)
    gathers = needs_columns((r, s), stride, padding, groups)
    chunks = chunk_images(n, p * q * r * s * c * g.itemsize, CHUNK)

    def convolve_chunk(i: int) -> None:
        rows, out = by_group(g[chunks[i]], groups), dx[chunks[i]]
        part = None if total is None else total[chunks[i]]
        if not gathers:
            np.matmul(rows[0], matrices[0].T, out=out.reshape(-1, c))
            finish_array(out, None, part, False)
            return
        out[...] = 0 if part is None else part
        with workspace((len(out), p, q, r, s, c), g.dtype) as columns:
            for group, (row, matrix) in enumerate(zip(rows, matrices)):
                np.matmul(row, matrix.T, out=columns.reshape(-1, len(matrix)))
                scatter(columns, out, group * c, *stride, *padding, *dilation)

    for_each(convolve_chunk, len(chunks))
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
    """x (n, h, w, c), g (n, p, q, k) -> dw (r, s, c/groups, k)."""
    n, p, q, k = g.shape
    r, s, c = *window, x.shape[3] // groups
    depth = r * s * c
    x, g = np.ascontiguousarray(x), np.ascontiguousarray(g)
    gathers = needs_columns(window, stride, padding, groups)
    chunks = chunk_images(n, p * q * depth * x.itemsize, CHUNK)
    sums = np.zeros((min(SUMS, len(chunks)), depth, k), x.dtype)

    def accumulate(part: int) -> None:
        totals = by_group(sums[part], groups)
        for images in chunks[part :: len(sums)]:
            chunk, rows = x[images], by_group(g[images], groups)
            if not gathers:
                totals[0] += chunk.reshape(-1, c).T @ rows[0]
                continue
            with workspace((len(chunk), p, q, r, s, c), x.dtype) as columns:
                for group, (total, row) in enumerate(zip(totals, rows)):
                    gather(chunk, columns, group * c, *stride, *padding, *dilation)
                    total += columns.reshape(-1, depth).T @ row

    for_each(accumulate, len(sums))
    return sums.sum(axis=0).reshape(r, s, c, k)
