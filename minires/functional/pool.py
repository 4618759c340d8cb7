"""Pooling: one number for each window of an image, channel by channel."""

from __future__ import annotations

from typing import Any

from ..backend import array_module
from ..errors import ShapeError
from ..kernels import pool as kernels
from ..kernels.cases import Case, distinct, permuted_view
from ..kernels.im2col import output_size
from ..kernels.memory import empty
from ..kernels.strided import write_part
from ..op import op
from .conv import pair
from .elementwise import need_float

__all__ = [
    "adaptive_avg_pool2d",
    "avg_pool2d",
    "global_avg_pool2d",
    "global_max_pool2d",
    "max_pool2d",
]


def _check(name: str, x: Any, kernel_size: Any, stride: Any, padding: Any) -> dict[str, Any]:
    """Check the shapes of a pooling and return the keyword arguments of its kernels."""
    _check_images(name, x)
    window = pair(name, "kernel_size", kernel_size)
    stride = window if stride is None else pair(name, "stride", stride)
    padding = pair(name, "padding", padding, least=0)
    if 2 * padding[0] > window[0] or 2 * padding[1] > window[1]:
        raise ShapeError(f"{name}: padding {padding} is more than half of the window {window}")
    sizes = [output_size(x.shape[1 + i], window[i], stride[i], padding[i]) for i in (0, 1)]
    if min(sizes) < 1:
        raise ShapeError(f"{name}: window {window} does not fit into x of shape {x.shape}")
    return {"window": window, "stride": stride, "padding": padding}


def _check_images(name: str, x: Any) -> None:
    need_float(name, x)
    if x.ndim != 4 or x.size == 0:
        raise ShapeError(f"{name}: x must be (n, h, w, c) and not empty, got {x.shape}")


@op(
    Case(distinct(2, 4, 4, 3), kernel_size=2),
    Case(distinct(2, 5, 6, 2), kernel_size=3, stride=2, padding=1),
    Case(distinct(1, 5, 5, 2), kernel_size=(3, 2), stride=(1, 2)),
)
def max_pool2d(x, *, kernel_size, stride=None, padding=0):
    """The largest value of each window; padding never wins. x (n, h, w, c) -> (n, p, q, c).

    stride: the window's size unless given. The first of equal values gets the gradient.
    """
    params = _check("max_pool2d", x, kernel_size, stride, padding)
    y, index = kernels.max_pool2d(x, **params)

    def backward(g):
        g = array_module(g).ascontiguousarray(g)
        return (kernels.max_pool2d_gradient(g, index, size=x.shape[1:3], **params),)

    return y, backward


@op(
    Case((2, 4, 4, 3), kernel_size=2),
    Case((2, 5, 6, 2), kernel_size=3, stride=2, padding=1),
    Case((2, 5, 6, 2), kernel_size=3, stride=2, padding=1, count_include_pad=False),
    Case(permuted_view(1, 5, 5, 2), kernel_size=(3, 2), stride=(1, 2)),
)
def avg_pool2d(x, *, kernel_size, stride=None, padding=0, count_include_pad=True):
    """The mean of each window. x (n, h, w, c) -> (n, p, q, c).

    count_include_pad: divide by the window's size; else by how many of its pixels lie inside the
    image.
    """
    params = _check("avg_pool2d", x, kernel_size, stride, padding)
    params["only_inside"] = not count_include_pad
    y = kernels.average_pool2d(x, **params)
    return y, lambda g: (kernels.average_pool2d_gradient(g, size=x.shape[1:3], **params),)


def _ranges(size: int, count: int) -> list[slice]:
    """`count` ranges that cover `size` pixels, as even as they can be; they may overlap by one."""
    return [slice(i * size // count, -(-(i + 1) * size // count)) for i in range(count)]


@op(
    Case((2, 4, 6, 3), output_size=2),
    Case((2, 5, 7, 2), output_size=(3, 2)),
    Case((1, 2, 2, 1), output_size=3),
)
def adaptive_avg_pool2d(x, *, output_size):
    """The mean over a grid of output_size (an int or a pair) nearly equal windows."""
    _check_images("adaptive_avg_pool2d", x)
    p, q = pair("adaptive_avg_pool2d", "output_size", output_size)
    rows, columns = _ranges(x.shape[1], p), _ranges(x.shape[2], q)
    xp = array_module(x)
    y = xp.empty((x.shape[0], p, q, x.shape[3]), x.dtype)
    for i, row in enumerate(rows):
        for j, column in enumerate(columns):
            y[:, i, j] = x[:, row, column].mean(axis=(1, 2))

    def backward(g):
        dx = xp.zeros(x.shape, x.dtype)
        for i, row in enumerate(rows):
            for j, column in enumerate(columns):
                count = (row.stop - row.start) * (column.stop - column.start)
                dx[:, row, column] += (g[:, i, j] / count)[:, None, None]
        return (dx,)

    return y, backward


@op(Case((2, 3, 4, 2)))
def global_avg_pool2d(x):
    """The mean of each channel's map. x (n, h, w, c) -> (n, c)."""
    _check_images("global_avg_pool2d", x)
    xp, pixels = array_module(x), x.shape[1] * x.shape[2]

    def backward(g):
        dx = empty(x.shape, x.dtype, like=x)
        write_part(dx, xp.broadcast_to((g / pixels)[:, None, None], x.shape), add=False)
        return (dx,)

    return x.mean(axis=(1, 2)), backward


@op(Case(distinct(2, 3, 4, 2)))
def global_max_pool2d(x):
    """The largest value of each channel's map. x (n, h, w, c) -> (n, c)."""
    _check_images("global_max_pool2d", x)
    xp = array_module(x)
    flat = x.reshape(x.shape[0], -1, x.shape[3])
    index = flat.argmax(axis=1)[:, None]

    def backward(g):
        dx = xp.zeros(flat.shape, x.dtype)
        xp.put_along_axis(dx, index, g[:, None], axis=1)
        return (dx.reshape(x.shape),)

    return xp.take_along_axis(flat, index, axis=1)[:, 0], backward
