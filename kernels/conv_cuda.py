"""Convolution and its two gradients on the GPU: columns by kernels of our own, products by cuBLAS.

As many images at a time as have their columns in WORKSPACE bytes, so that memory stays bounded:
each such chunk is two launches, whatever the number of groups, as the columns are group-major and
cuBLAS takes weights and outputs apart by itself. A 1x1 window that reads every pixel once needs no
columns. In 16 bits (`precision`) the launch that gathers columns rounds the other operand, too.
Where every channel is a group there are no products, but kernels for that (`depthwise_cuda`); large
3x3 convolutions in float32 are done by `winograd_cuda`.
"""

from __future__ import annotations

from typing import Any

from . import depthwise_cuda, winograd_cuda
from .dispatch import array_module
from .im2col import (
    Pair,
    by_group,
    chunk_images,
    conv_shape,
    launch_col2im,
    launch_im2col,
    needs_columns,
)
from .launch import Source, pixel_grid, same_floats
from .memory import empty, workspace
from .precision import operand_dtype
from .product import multiply, narrow

__all__ = ["convolve", "convolve_input_gradient", "convolve_weight_gradient", "finish"]
__all__ += ["serves_convolution"]

SOURCE = Source("finish.cu")
WORKSPACE = 1 << 28  # bytes of columns at a time; one image may need more
EACH = 8  # rows that a thread finishes


def serves_convolution(x: Any, w: Any, *others: Any, **_: Any) -> bool:
    """Whether these functions take a call: one dtype, float32 or float64."""
    return same_floats(x, w, *others)


def _depthwise(w: Any, groups: int) -> bool:
    """Whether each channel has a window w (r, s, 1, c) of its own."""
    return groups > 1 and w[2:] == (1, groups)


def _beside(x: Any, number: Any) -> tuple[Any, Any]:
    """Where x will be as an operand, and what `launch_im2col` has to round for that."""
    if x.dtype == number:
        return x, None
    y = empty(x.shape, number, like=x)
    return y, (x, y)


def finish(y: Any, b: Any, residual: Any, relu: bool) -> None:
    """y (…, k) + b (k,) + residual, then ReLU, in place; b and residual may be None."""
    if b is None and residual is None and not relu:
        return
    xp, k = array_module(y), y.shape[-1]
    b, residual = (v if v is None else xp.ascontiguousarray(v) for v in (b, residual))
    rows = y.size // max(1, k)
    grid, block = pixel_grid(rows, k, EACH)
    SOURCE.launch("finish", grid, block, y, b, residual, rows, k, EACH, int(relu))


def convolve(
    x: Any,
    w: Any,
    b: Any = None,
    residual: Any = None,
    *,
    stride: Pair,
    padding: Pair,
    dilation: Pair,
    groups: int,
    relu: bool = False,
    packed: dict[str, Any] | None = None,
) -> Any:
    """x (n, h, w, c), w (r, s, c/groups, k) -> (n, p, q, k). `packed` is of no use here."""
    xp, params = array_module(x), {"stride": stride, "padding": padding, "dilation": dilation}
    if _depthwise(w.shape, groups):
        return depthwise_cuda.convolve(x, w, b, residual, **params, relu=relu)
    x, w, (r, s, c, k) = xp.ascontiguousarray(x), xp.ascontiguousarray(w), w.shape
    shape = _, p, q, _ = conv_shape(x, w, **params)
    y, depth, number = empty(shape, x.dtype, like=x), r * s * c, operand_dtype(x.dtype)
    if not needs_columns((r, s), stride, padding, groups):
        x, w = narrow(number, x, w)
        multiply(x.reshape(1, -1, c), w.reshape(1, c, k), y.reshape(1, -1, k))
        finish(y, b, residual, relu)
        return y
    ways = (r, s), stride, dilation, x.dtype
    if groups == 1 and winograd_cuda.pays(len(x), (p, q), c, k, *ways):
        b, residual = (v if v is None else xp.ascontiguousarray(v) for v in (b, residual))
        more: dict[str, Any] = {"padding": padding, "size": (p, q), "relu": relu}
        return winograd_cuda.correlate(x, w, b, residual, **more, room=WORKSPACE)
    w, beside = _beside(w, number)
    for images in chunk_images(len(x), p * q * depth * groups * number.itemsize, WORKSPACE):
        with workspace((groups, images.stop - images.start, p, q, r, s, c), number, x) as columns:
            launch_im2col(x[images], columns, beside, **params, groups=groups)
            rows = columns.reshape(groups, -1, depth)
            multiply(rows, by_group(w, groups), by_group(y[images], groups))
        beside = None
    finish(y, b, residual, relu)
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
    groups: int,
) -> Any:
    """g (n, p, q, k), w (r, s, c/groups, k) -> dx (n, h, w, c) for images of `size` (h, w), plus
    `total` where it is given.
    """
    xp, params = array_module(g), {"stride": stride, "padding": padding, "dilation": dilation}
    if _depthwise(w.shape, groups):
        return depthwise_cuda.convolve_input_gradient(g, w, total, size=size, **params)
    g, w, (r, s, c, k) = xp.ascontiguousarray(g), xp.ascontiguousarray(w), w.shape
    (n, p, q, _), depth = g.shape, r * s * c
    total = None if total is None else xp.ascontiguousarray(total)
    ways = (r, s), stride, dilation, g.dtype
    if groups == 1 and max(padding) < 3 and winograd_cuda.pays(n, size, k, c, *ways):
        border = 2 - padding[0], 2 - padding[1]
        more: dict[str, Any] = {"padding": border, "size": size, "relu": False, "rotated": True}
        return winograd_cuda.correlate(g, w, None, total, **more, room=WORKSPACE)
    dx = empty((n, *size, c * groups), g.dtype, like=g)
    g, w = narrow(operand_dtype(g.dtype), g, w)
    matrices = by_group(w, groups).transpose(0, 2, 1)  # (groups, k/groups, depth)
    if not needs_columns((r, s), stride, padding, groups):
        multiply(by_group(g, 1), matrices, by_group(dx, 1))
        finish(dx, None, total, relu=False)
        return dx
    for images in chunk_images(n, p * q * depth * groups * dx.itemsize, WORKSPACE):
        m = images.stop - images.start
        with workspace((groups, m, p, q, r, s, c), dx.dtype, like=dx) as columns:
            multiply(by_group(g[images], groups), matrices, columns.reshape(groups, -1, depth))
            plus = None if total is None else total[images]
            launch_col2im(columns, dx[images], plus, **params, groups=groups)
    return dx


def convolve_weight_gradient(
    x: Any, g: Any, *, window: Pair, stride: Pair, padding: Pair, dilation: Pair, groups: int
) -> Any:
    """x (n, h, w, c), g (n, p, q, k) -> dw (r, s, c/groups, k)."""
    xp, params = array_module(x), {"stride": stride, "padding": padding, "dilation": dilation}
    if _depthwise((*window, x.shape[3] // groups, g.shape[3]), groups):
        return depthwise_cuda.convolve_weight_gradient(x, g, window=window, **params)
    x, g, (n, p, q, k) = xp.ascontiguousarray(x), xp.ascontiguousarray(g), g.shape
    c, number = x.shape[3] // groups, operand_dtype(x.dtype)
    dw, depth = empty((*window, c, k), x.dtype, like=x), window[0] * window[1] * c
    if not needs_columns(window, stride, padding, groups):
        x, g = narrow(number, x, g)
        multiply(by_group(x, 1).transpose(0, 2, 1), by_group(g, 1), by_group(dw, 1))
        return dw
    if not n:
        dw.fill(0)
    for images in chunk_images(n, p * q * depth * groups * number.itemsize, WORKSPACE):
        rows, beside = _beside(g[images], number)
        m = images.stop - images.start
        with workspace((groups, m, p, q, *window, c), number, like=x) as columns:
            launch_im2col(x[images], columns, beside, **params, groups=groups)
            sides = columns.reshape(groups, -1, depth).transpose(0, 2, 1)
            add = images.start > 0
            multiply(sides, by_group(rows, groups), by_group(dw, groups), add=add)
    return dw
