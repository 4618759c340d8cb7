"""Depthwise convolutions, where each channel has a window of its own, and their two gradients.

    y[p, q, k]  = sum over taps (u, v) of x[p·stride + u·dilation - padding, …, k] · w[u, v, k]

A product of matrices would have one column: there is nothing to keep in registers but the sum. So
these are the plain loops of the definition, innermost over the channels of a pixel, which LLVM
makes vectors of. Memory is the limit: all taps of a line of outputs read the same few lines of the
image, which stay in the cache.

Results do not depend on the number of threads: an output line or an image belongs to one thread,
and weight gradients are sums over a fixed number of parts, added in order.
"""

from __future__ import annotations

import numba
import numpy as np

from .im2col import Pair, output_size
from .memory import empty, workspace

__all__ = ["convolve", "convolve_input_gradient", "convolve_weight_gradient"]

PARTS = 4  # of a weight gradient


def convolve(
    x: np.ndarray, w: np.ndarray, *, stride: Pair, padding: Pair, dilation: Pair
) -> np.ndarray:
    """x (n, h, w, c), w (r, s, 1, c) -> (n, p, q, c)."""
    x, w = np.ascontiguousarray(x), np.ascontiguousarray(w)
    p = output_size(x.shape[1], w.shape[0], stride[0], padding[0], dilation[0])
    q = output_size(x.shape[2], w.shape[1], stride[1], padding[1], dilation[1])
    y = empty((len(x), p, q, x.shape[3]), x.dtype)
    _convolve(x, w, y, stride, padding, dilation)
    return y


def convolve_input_gradient(
    g: np.ndarray, w: np.ndarray, *, size: Pair, stride: Pair, padding: Pair, dilation: Pair
) -> np.ndarray:
    """g (n, p, q, c), w (r, s, 1, c) -> dx (n, h, w, c) for images of `size` (h, w)."""
    g, w = np.ascontiguousarray(g), np.ascontiguousarray(w)
    dx = empty((len(g), *size, g.shape[3]), g.dtype)
    _input_gradient(g, w, dx, stride, padding, dilation)
    return dx


def convolve_weight_gradient(
    x: np.ndarray, g: np.ndarray, *, window: Pair, stride: Pair, padding: Pair, dilation: Pair
) -> np.ndarray:
    """x (n, h, w, c), g (n, p, q, c) -> (r, s, 1, c)."""
    x, g = np.ascontiguousarray(x), np.ascontiguousarray(g)
    shape = (*window, 1, x.shape[3])
    with workspace((PARTS, 2, *shape), x.dtype) as sums:
        _weight_gradient(x, g, sums, stride, padding, dilation)
        return sums[:, 0].sum(axis=0)


@numba.njit(nogil=True)
def _multiply_add(to, x, y):
    """to += x · y, each (c,)"""
    for k in range(len(to)):
        to[k] += x[k] * y[k]


@numba.njit(nogil=True)
def _taps(first, step, count, size):
    """The range of those taps at first, first + step, … that are inside 0 … size - 1."""
    low = max(0, -(first // step))  # -first / step, rounded up
    return range(low, max(low, min(count, (size - 1 - first) // step + 1)))


@numba.njit(nogil=True)
def _output_line(x, w, y, i, stride, padding, dilation):
    """Line i of the outputs of one image."""
    row, column = i * stride[0] - padding[0], -padding[1]
    for j in range(y.shape[1]):
        for k in range(y.shape[2]):
            y[i, j, k] = 0
        for u in _taps(row, dilation[0], w.shape[0], x.shape[0]):
            for v in _taps(column, dilation[1], w.shape[1], x.shape[1]):
                pixel = x[row + u * dilation[0], column + v * dilation[1]]
                _multiply_add(y[i, j], pixel, w[u, v, 0])
        column += stride[1]


@numba.njit(nogil=True)
def _input_gradient_image(g, w, dx, stride, padding, dilation):
    """dx of one image."""
    flat = dx.reshape(-1)
    for i in range(len(flat)):
        flat[i] = 0
    for i in range(g.shape[0]):
        row, column = i * stride[0] - padding[0], -padding[1]
        for j in range(g.shape[1]):
            for u in _taps(row, dilation[0], w.shape[0], dx.shape[0]):
                for v in _taps(column, dilation[1], w.shape[1], dx.shape[1]):
                    pixel = dx[row + u * dilation[0], column + v * dilation[1]]
                    _multiply_add(pixel, g[i, j], w[u, v, 0])
            column += stride[1]


@numba.njit(nogil=True)
def _weight_gradient_line(x, g, dw, i, stride, padding, dilation):
    """dw (r, s, 1, c) += what line i of the outputs of one image gives."""
    row, column = i * stride[0] - padding[0], -padding[1]
    for j in range(g.shape[1]):
        for u in _taps(row, dilation[0], dw.shape[0], x.shape[0]):
            for v in _taps(column, dilation[1], dw.shape[1], x.shape[1]):
                pixel = x[row + u * dilation[0], column + v * dilation[1]]
                _multiply_add(dw[u, v, 0], pixel, g[i, j])
        column += stride[1]


@numba.njit(cache=True, parallel=True)
def _convolve(x, w, y, stride, padding, dilation):
    n, p = y.shape[:2]
    for line in numba.prange(n * p):
        image = line // p
        _output_line(x[image], w, y[image], line % p, stride, padding, dilation)


@numba.njit(cache=True, parallel=True)
def _input_gradient(g, w, dx, stride, padding, dilation):
    for image in numba.prange(len(g)):
        _input_gradient_image(g[image], w, dx[image], stride, padding, dilation)


@numba.njit(nogil=True)
def _weight_gradient_lines(x, g, sums, first, last, stride, padding, dilation):
    """sums[0] over the lines first … last - 1 of outputs; sums[1] are those of one line, so that
    rounding errors do not grow with the number of pixels.
    """
    p, total, one = g.shape[1], sums[0].reshape(-1), sums[1].reshape(-1)
    for i in range(len(total)):
        total[i] = 0
    for line in range(first, last):
        for i in range(len(one)):
            one[i] = 0
        image = line // p
        _weight_gradient_line(x[image], g[image], sums[1], line % p, stride, padding, dilation)
        for i in range(len(one)):
            total[i] += one[i]


@numba.njit(cache=True, parallel=True)
def _weight_gradient(x, g, sums, stride, padding, dilation):
    lines, parts = len(g) * g.shape[1], len(sums)
    for part in numba.prange(parts):
        first, last = part * lines // parts, (part + 1) * lines // parts
        _weight_gradient_lines(x, g, sums[part], first, last, stride, padding, dilation)
