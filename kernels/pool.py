"""Pooling: the largest of each window with where it was, or the mean, and their gradients.

Images (n, h, w, c) -> (n, p, q, c). `index` holds the winner's place in its window, row by row: 0 …
r·s - 1. On the CPU the mean needs only im2col and col2im.
"""

from __future__ import annotations

from typing import Any

import numba
import numpy as np

from .cases import Case, distinct, permuted_view
from .dispatch import array_module, kernel
from .im2col import Pair, col2im, im2col, output_size
from .launch import Source, pixel_grid, same_floats
from .memory import empty

__all__ = ["average_pool2d", "average_pool2d_gradient", "max_pool2d", "max_pool2d_gradient"]

SOURCE = Source("pool.cu")


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


def _mean_case(g: Any, size: Pair, window: Pair, stride: Pair, padding: Pair, inside: bool) -> Case:
    params = {"window": window, "stride": stride, "padding": padding}
    return Case(g, **params, size=size, only_inside=inside)


def _counts(like: Any, size: Pair, params: dict[str, Any], only_inside: bool) -> Any:
    """The pixels of each window, all of them (a number) or only those inside the image
    (1, p, q, 1).
    """
    if not only_inside:
        r, s = params["window"]
        return like.dtype.type(r * s)
    inside = array_module(like).ones((1, *size, 1), like.dtype)
    return im2col(inside, **params).sum(axis=(3, 4))


@kernel(
    Case((2, 4, 6, 3), window=(2, 2), stride=(2, 2), padding=(0, 0), only_inside=False),
    Case((2, 7, 5, 2), window=(3, 3), stride=(2, 2), padding=(1, 1), only_inside=True),
    Case(
        permuted_view(1, 5, 5, 1), window=(3, 2), stride=(1, 2), padding=(1, 0), only_inside=False
    ),
)
def average_pool2d(x: Any, *, window: Pair, stride: Pair, padding: Pair, only_inside: bool) -> Any:
    """x (n, h, w, c) -> the means of windows (n, p, q, c); only_inside: divide by how many of a
    window's pixels are inside the image, not by all.
    """
    params = {"window": window, "stride": stride, "padding": padding, "dilation": (1, 1)}
    return im2col(x, **params).sum(axis=(3, 4)) / _counts(x, x.shape[1:3], params, only_inside)


@kernel(
    _mean_case((2, 2, 3, 3), (4, 6), (2, 2), (2, 2), (0, 0), inside=False),
    _mean_case((2, 4, 3, 2), (7, 5), (3, 3), (2, 2), (1, 1), inside=True),
    _mean_case(permuted_view(1, 5, 2, 1), (5, 5), (3, 2), (1, 2), (1, 0), inside=False),
)
def average_pool2d_gradient(
    g: Any, *, window: Pair, stride: Pair, padding: Pair, size: Pair, only_inside: bool
) -> Any:
    """g (n, p, q, c) -> dx (n, h, w, c) for images of `size`."""
    params: dict[str, Any] = {"stride": stride, "padding": padding, "dilation": (1, 1)}
    share = g / _counts(g, size, {"window": window, **params}, only_inside)
    shape = (*g.shape[:3], *window, g.shape[3])
    columns = array_module(g).broadcast_to(share[:, :, :, None, None], shape)
    return col2im(columns, size=size, **params)


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
    _to_winners(g, index, dx, *window, *stride, *padding)
    return dx


# Loops over channels index the arrays as they are: to make a view of a pixel takes longer than to
# go over it.


@numba.njit(cache=True, parallel=True)
def _largest(x, y, index, r, s, sh, sw, ph, pw):
    n, h, w, c = x.shape
    _, p, q, _ = y.shape
    for line in numba.prange(n * p):
        b, i = line // p, line % p
        for j in range(q):
            first = True
            for u in range(max(0, ph - i * sh), min(r, h + ph - i * sh)):
                for v in range(max(0, pw - j * sw), min(s, w + pw - j * sw)):
                    row, column, place = i * sh + u - ph, j * sw + v - pw, np.int32(u * s + v)
                    if first:
                        for k in range(c):
                            y[b, i, j, k] = x[b, row, column, k]
                            index[b, i, j, k] = place
                        first = False
                        continue
                    for k in range(c):
                        pixel, best = x[b, row, column, k], y[b, i, j, k]
                        # NaN is larger than everything, as in NumPy
                        takes = (pixel > best) | ((pixel != pixel) & (best == best))
                        y[b, i, j, k] = pixel if takes else best
                        index[b, i, j, k] = place if takes else index[b, i, j, k]
            if first:  # nothing of the window is inside
                for k in range(c):
                    y[b, i, j, k] = -np.inf
                    index[b, i, j, k] = 0


@numba.njit(cache=True, parallel=True)
def _to_winners(g, index, dx, r, s, sh, sw, ph, pw):
    n, h, w, c = dx.shape
    _, p, q, _ = g.shape
    zero = g.dtype.type(0)
    for b in numba.prange(n):
        dx[b] = 0
        for i in range(p):
            for j in range(q):
                for u in range(max(0, ph - i * sh), min(r, h + ph - i * sh)):
                    for v in range(max(0, pw - j * sw), min(s, w + pw - j * sw)):
                        row, column, place = i * sh + u - ph, j * sw + v - pw, np.int32(u * s + v)
                        for k in range(c):
                            won = index[b, i, j, k] == place
                            dx[b, row, column, k] += g[b, i, j, k] if won else zero


def _launch(name: str, out: Any, *args: Any, images: Any, windows: Any, params: Any) -> None:
    """Run a kernel of pool.cu with a thread for each number of `out`; images (n, h, w, c) and
    windows (n, p, q, c) give the sizes.
    """
    _, h, w, c = images.shape
    pixels = out.size // max(1, c)
    grid, block = pixel_grid(pixels, c)
    sizes = pixels, h, w, c, *windows.shape[1:3]
    SOURCE.launch(name, grid, block, *args, *sizes, *params)


def _shape(x: Any, window: Pair, stride: Pair, padding: Pair) -> tuple[int, ...]:
    n, h, w, c = x.shape
    p = output_size(h, window[0], stride[0], padding[0])
    return n, p, output_size(w, window[1], stride[1], padding[1]), c


@max_pool2d.cuda(serves=same_floats)
def _max_pool2d_cuda(x: Any, *, window: Pair, stride: Pair, padding: Pair) -> tuple[Any, Any]:
    x, shape = array_module(x).ascontiguousarray(x), _shape(x, window, stride, padding)
    y, index = empty(shape, x.dtype, like=x), empty(shape, np.int32, like=x)
    params = (*window, *stride, *padding)
    _launch("largest", y, x, y, index, images=x, windows=y, params=params)
    return y, index


@max_pool2d_gradient.cuda(serves=lambda g, index, **_: same_floats(g) and index.dtype == np.int32)
def _max_pool2d_gradient_cuda(
    g: Any, index: Any, *, window: Pair, stride: Pair, padding: Pair, size: Pair
) -> Any:
    g, index = (array_module(g).ascontiguousarray(a) for a in (g, index))
    dx = empty((len(g), *size, g.shape[3]), g.dtype, like=g)
    params = (*window, *stride, *padding)
    _launch("to_winners", dx, g, index, dx, images=dx, windows=g, params=params)
    return dx


@average_pool2d.cuda(serves=same_floats)
def _average_pool2d_cuda(
    x: Any, *, window: Pair, stride: Pair, padding: Pair, only_inside: bool
) -> Any:
    x = array_module(x).ascontiguousarray(x)
    y = empty(_shape(x, window, stride, padding), x.dtype, like=x)
    params = (*window, *stride, *padding, int(only_inside))
    _launch("average", y, x, y, images=x, windows=y, params=params)
    return y


@average_pool2d_gradient.cuda(serves=same_floats)
def _average_pool2d_gradient_cuda(
    g: Any, *, window: Pair, stride: Pair, padding: Pair, size: Pair, only_inside: bool
) -> Any:
    g = array_module(g).ascontiguousarray(g)
    dx = empty((len(g), *size, g.shape[3]), g.dtype, like=g)
    params = (*window, *stride, *padding, int(only_inside))
    _launch("average_gradient", dx, g, dx, images=dx, windows=g, params=params)
    return dx
