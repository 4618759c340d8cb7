"""Pooling: the largest of each window with where it was, and its gradient. Mean pooling needs only
im2col and col2im.

Images (n, h, w, c) -> (n, p, q, c). `index` holds the winner's place in its window, row by row: 0 …
r·s - 1.
"""

from __future__ import annotations

from typing import Any

import numba
import numpy as np

from .cases import Case, distinct
from .dispatch import array_module, kernel
from .im2col import Pair, col2im, im2col, output_size
from .memory import empty

__all__ = ["max_pool2d", "max_pool2d_gradient"]


def _winners(n: int, p: int, q: int, c: int, places: int) -> Any:
    make = lambda rng, dtype: rng.integers(0, places, (n, p, q, c), np.int32)  # noqa: E731
    make.__name__ = f"winners({n},{p},{q},{c})"
    return make


@kernel(
    Case(distinct(2, 4, 6, 3), window=(2, 2), stride=(2, 2), padding=(0, 0)),
    Case(distinct(2, 7, 5, 2), window=(3, 3), stride=(2, 2), padding=(1, 1)),
    Case(distinct(1, 5, 5, 1), window=(3, 2), stride=(1, 2), padding=(1, 0)),
)
def max_pool2d(x: Any, *, window: Pair, stride: Pair, padding: Pair) -> tuple[Any, Any]:
    """x (n, h, w, c) -> y (n, p, q, c) and index (n, p, q, c) int32; the first of equal values
    wins.
    """
    xp, one = array_module(x), (1, 1)
    ph, pw = padding
    x = xp.pad(x, ((0, 0), (ph, ph), (pw, pw), (0, 0)), constant_values=-np.inf)
    columns = im2col(x, window=window, stride=stride, padding=(0, 0), dilation=one)
    columns = columns.reshape(*columns.shape[:3], -1, x.shape[3])  # (n, p, q, r·s, c)
    index = columns.argmax(axis=3)
    y = xp.take_along_axis(columns, index[:, :, :, None], axis=3)[:, :, :, 0]
    return y, index.astype(np.int32)


@kernel(
    Case(
        (2, 2, 3, 3),
        _winners(2, 2, 3, 3, 4),
        window=(2, 2),
        stride=(2, 2),
        padding=(0, 0),
        size=(4, 6),
    ),
    Case(
        (2, 5, 3, 1),
        _winners(2, 5, 3, 1, 2),
        window=(1, 2),
        stride=(1, 2),
        padding=(0, 0),
        size=(5, 6),
    ),
    Case(
        (1, 3, 3, 2),
        _winners(1, 3, 3, 2, 9),
        window=(3, 3),
        stride=(1, 1),
        padding=(0, 0),
        size=(5, 5),
    ),
)
def max_pool2d_gradient(
    g: Any, index: Any, *, window: Pair, stride: Pair, padding: Pair, size: Pair
) -> Any:
    """g, index (n, p, q, c) -> dx (n, h, w, c) for images of `size`; a pixel that won twice gets
    both.
    """
    places = array_module(g).arange(window[0] * window[1])[:, None]
    columns = g[:, :, :, None] * (index[:, :, :, None] == places)  # (n, p, q, r·s, c)
    columns = columns.reshape(*g.shape[:3], *window, g.shape[3])
    return col2im(columns, size=size, stride=stride, padding=padding, dilation=(1, 1))


def _float_and_contiguous(x: np.ndarray, *others: np.ndarray, **_: Any) -> bool:
    return x.dtype.kind == "f" and all(a.flags.c_contiguous for a in (x, *others))


@max_pool2d.cpu(serves=_float_and_contiguous)
def _max_pool2d_cpu(
    x: np.ndarray, *, window: Pair, stride: Pair, padding: Pair
) -> tuple[np.ndarray, np.ndarray]:
    n, h, w, c = x.shape
    p = output_size(h, window[0], stride[0], padding[0])
    q = output_size(w, window[1], stride[1], padding[1])
    y, index = empty((n, p, q, c), x.dtype), empty((n, p, q, c), np.int32)
    _largest(x, y, index, *window, *stride, *padding)
    return y, index


@max_pool2d_gradient.cpu(serves=_float_and_contiguous)
def _max_pool2d_gradient_cpu(
    g: np.ndarray, index: np.ndarray, *, window: Pair, stride: Pair, padding: Pair, size: Pair
) -> np.ndarray:
    dx = empty((g.shape[0], *size, g.shape[3]), g.dtype)
    _to_winners(g, index, dx, window[1], *stride, *padding)
    return dx


@numba.njit(cache=True, parallel=True)
def _largest(x, y, index, r, s, sh, sw, ph, pw):
    n, h, w, c = x.shape
    _, p, q, _ = y.shape
    for line in numba.prange(n * p):
        b, i = line // p, line % p
        for j in range(q):
            best, place = y[b, i, j], index[b, i, j]
            best[:] = -np.inf
            place[:] = 0
            first = True
            for u in range(max(0, ph - i * sh), min(r, h + ph - i * sh)):
                for v in range(max(0, pw - j * sw), min(s, w + pw - j * sw)):
                    pixel = x[b, i * sh + u - ph, j * sw + v - pw]
                    for k in range(c):
                        # NaN is larger than everything, as in NumPy
                        if (
                            first
                            or pixel[k] > best[k]
                            or (pixel[k] != pixel[k] and best[k] == best[k])
                        ):
                            best[k] = pixel[k]
                            place[k] = u * s + v
                    first = False


@numba.njit(cache=True, parallel=True)
def _to_winners(g, index, dx, s, sh, sw, ph, pw):
    n, p, q, c = g.shape
    for b in numba.prange(n):
        dx[b] = 0
        for i in range(p):
            for j in range(q):
                for k in range(c):
                    place = index[b, i, j, k]
                    dx[b, i * sh + place // s - ph, j * sw + place % s - pw, k] += g[b, i, j, k]
