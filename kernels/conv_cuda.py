"""Convolution and its two gradients on the GPU: columns by kernels of our own, products by cuBLAS.

As many images at a time as have their columns in WORKSPACE bytes, so that memory stays bounded:
each such chunk is two launches. A 1x1 window that reads every pixel once needs no columns. With
groups the columns are group-major, so that one batched product does all groups; weights and outputs
are rearranged around it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from .dispatch import array_module
from .im2col import Pair, conv_shape, launch_col2im, launch_im2col
from .launch import Source, pixel_grid, same_floats
from .memory import empty, workspace

__all__ = ["convolve", "convolve_input_gradient", "convolve_weight_gradient", "finish"]
__all__ += ["serves_convolution"]

SOURCE = Source("finish.cu")
WORKSPACE = 1 << 28  # bytes of columns at a time; one image may need more
EACH = 8  # rows that a thread finishes


def serves_convolution(x: Any, w: Any, *others: Any, **_: Any) -> bool:
    """Whether these functions take a call: one dtype, float32 or float64."""
    return same_floats(x, w, *others)


def _needs_columns(window: Pair, stride: Pair, padding: Pair, groups: int) -> bool:
    return (*window, *stride, *padding, groups) != (1, 1, 1, 1, 0, 0, 1)


def _chunks(images: int, bytes_an_image: int) -> Iterator[slice]:
    """The images whose columns are in the workspace together."""
    step = max(1, WORKSPACE // max(1, bytes_an_image))
    return (slice(start, min(start + step, images)) for start in range(0, images, step))


def _by_group(rows: Any, groups: int) -> Any:
    """(…, groups · k) as (groups, rows, k)."""
    k = rows.shape[-1] // groups
    return rows.reshape(-1, groups, k).transpose(1, 0, 2)


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
    x, (r, s, c, k) = xp.ascontiguousarray(x), w.shape
    shape = _, p, q, _ = conv_shape(x, w, **params)
    y, depth = empty(shape, x.dtype, like=x), r * s * c
    if not _needs_columns((r, s), stride, padding, groups):
        xp.matmul(x.reshape(-1, c), w.reshape(c, k), out=y.reshape(-1, k))
        finish(y, b, residual, relu)
        return y
    matrices = xp.ascontiguousarray(_by_group(w, groups))  # (groups, depth, k/groups)
    for images in _chunks(len(x), p * q * depth * groups * x.itemsize):
        out = y[images]
        with workspace((groups, len(out), p, q, r, s, c), x.dtype, like=x) as columns:
            launch_im2col(x[images], columns, **params, groups=groups)
            rows = columns.reshape(groups, -1, depth)
            if groups == 1:
                xp.matmul(rows[0], matrices[0], out=out.reshape(-1, k))
            else:
                out.reshape(-1, groups, k // groups)[...] = (rows @ matrices).transpose(1, 0, 2)
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
    g, (r, s, c, k), (n, p, q, _) = xp.ascontiguousarray(g), w.shape, g.shape
    dx, depth = empty((n, *size, c * groups), g.dtype, like=g), r * s * c
    if not _needs_columns((r, s), stride, padding, groups):
        xp.matmul(g.reshape(-1, k), w.reshape(c, k).T, out=dx.reshape(-1, c))
        finish(dx, None, total, relu=False)
        return dx
    total = None if total is None else xp.ascontiguousarray(total)
    matrices = _by_group(w, groups).transpose(0, 2, 1)  # (groups, k/groups, depth)
    if groups > 1:
        matrices = xp.ascontiguousarray(matrices)
    for images in _chunks(n, p * q * depth * groups * g.itemsize):
        m = images.stop - images.start
        with workspace((groups, m, p, q, r, s, c), g.dtype, like=g) as columns:
            out = columns.reshape(groups, -1, depth)
            if groups == 1:
                xp.matmul(g[images].reshape(-1, k), matrices[0], out=out[0])
            else:
                xp.matmul(xp.ascontiguousarray(_by_group(g[images], groups)), matrices, out=out)
            plus = None if total is None else total[images]
            launch_col2im(columns, dx[images], plus, **params, groups=groups)
    return dx


def convolve_weight_gradient(
    x: Any, g: Any, *, window: Pair, stride: Pair, padding: Pair, dilation: Pair, groups: int
) -> Any:
    """x (n, h, w, c), g (n, p, q, k) -> dw (r, s, c/groups, k)."""
    xp, params = array_module(x), {"stride": stride, "padding": padding, "dilation": dilation}
    x, g, (n, p, q, k) = xp.ascontiguousarray(x), xp.ascontiguousarray(g), g.shape
    c = x.shape[3] // groups
    shape, depth = (*window, c, k), window[0] * window[1] * c
    if not _needs_columns(window, stride, padding, groups):
        return xp.matmul(x.reshape(-1, c).T, g.reshape(-1, k)).reshape(shape)
    total: Any = None
    for images in _chunks(n, p * q * depth * groups * x.itemsize):
        m, rows = images.stop - images.start, _by_group(g[images], groups)
        with workspace((groups, m, p, q, *window, c), x.dtype, like=x) as columns:
            launch_im2col(x[images], columns, **params, groups=groups)
            sides = columns.reshape(groups, -1, depth).transpose(0, 2, 1)
            if groups == 1:
                part = xp.matmul(sides[0], rows[0])[None]
            else:
                part = xp.matmul(sides, xp.ascontiguousarray(rows))  # (groups, depth, k/groups)
        if total is None:
            total = part
        else:
            total += part
    if total is None:  # an empty batch
        return xp.zeros(shape, x.dtype)
    return total.transpose(1, 0, 2).reshape(shape)
