"""Convolution and its two gradients as products with im2col columns.

    y  = columns(x) @ w                  (n·p·q, r·s·c) @ (r·s·c, k)
    dw = columns(x).T @ g
    dx = col2im(g @ w.T)

Images (n, h, w, c), weights (r, s, c / groups, k), outputs (n, p, q, k) with the outputs of one
group side by side. The references build all columns at once; the CPU twins go through a few images
at a time, so that the columns are still in cache when the product reads them, and skip the columns
where a 1x1 window reads every pixel once.

Source: Chellapilla, Puri and Simard, "High performance convolutional neural networks for document
processing", 2006.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from .cases import Case, permuted_view
from .dispatch import kernel
from .im2col import Pair, col2im, im2col, output_size
from .memory import empty, workspace

__all__ = ["conv2d", "conv2d_input_gradient", "conv2d_weight_gradient"]

CHUNK = (
    4 << 20
)  # bytes of columns at a time: about what two cores' L2 caches and a share of L3 hold


def _params(
    stride: Any = 1, padding: Any = 0, dilation: Any = 1, groups: int = 1, **more: Any
) -> dict[str, Any]:
    pairs = {"stride": stride, "padding": padding, "dilation": dilation}
    pairs = {name: (v, v) if isinstance(v, int) else v for name, v in pairs.items()}
    return {**pairs, "groups": groups, **more}


def _shape_of_output(
    x: Any, w: Any, stride: Pair, padding: Pair, dilation: Pair
) -> tuple[int, ...]:
    p = output_size(x.shape[1], w.shape[0], stride[0], padding[0], dilation[0])
    q = output_size(x.shape[2], w.shape[1], stride[1], padding[1], dilation[1])
    return x.shape[0], p, q, w.shape[3]


def _grouped_columns(columns: Any, groups: int) -> Any:
    """(n, p, q, r, s, c) -> (groups, n·p·q, r·s·c/groups); a view when there is one group."""
    n, p, q, r, s, c = columns.shape
    split = columns.reshape(n * p * q, r * s, groups, c // groups)
    return split.transpose(2, 0, 1, 3).reshape(groups, n * p * q, -1)


def _grouped_weights(w: Any, groups: int) -> Any:
    """(r, s, c/groups, k) -> (groups, r·s·c/groups, k/groups)"""
    return w.reshape(-1, groups, w.shape[3] // groups).transpose(1, 0, 2)


def _grouped_outputs(y: Any, groups: int) -> Any:
    """(n, p, q, k) -> (groups, n·p·q, k/groups)"""
    return y.reshape(-1, groups, y.shape[3] // groups).transpose(1, 0, 2)


@kernel(
    Case((2, 5, 6, 3), (3, 3, 3, 4), **_params(padding=1)),
    Case((3, 7, 5, 2), (3, 2, 2, 3), **_params(stride=(2, 1), padding=(0, 2), dilation=(2, 1))),
    Case((2, 4, 4, 6), (3, 3, 2, 9), **_params(padding=1, groups=3)),
    Case((2, 4, 5, 4), (1, 1, 4, 3), **_params()),
    Case((1, 5, 5, 4), (1, 1, 4, 3), **_params(stride=2)),
    Case(permuted_view(2, 5, 5, 3), permuted_view(3, 3, 3, 2), **_params(padding=1)),
)
def conv2d(x: Any, w: Any, *, stride: Pair, padding: Pair, dilation: Pair, groups: int) -> Any:
    """x (n, h, w, c), w (r, s, c/groups, k) -> y (n, p, q, k)."""
    columns = im2col(x, window=w.shape[:2], stride=stride, padding=padding, dilation=dilation)
    y = _grouped_columns(columns, groups) @ _grouped_weights(w, groups)
    return y.transpose(1, 0, 2).reshape(_shape_of_output(x, w, stride, padding, dilation))


@kernel(
    Case((2, 5, 6, 4), (3, 3, 3, 4), **_params(padding=1, size=(5, 6))),
    Case((3, 2, 8, 3), (3, 2, 2, 3), **_params((2, 1), (0, 2), (2, 1), size=(7, 5))),
    Case((2, 4, 4, 9), (3, 3, 2, 9), **_params(padding=1, groups=3, size=(4, 4))),
    Case((2, 4, 5, 3), (1, 1, 4, 3), **_params(size=(4, 5))),
    Case((1, 3, 3, 3), (1, 1, 4, 3), **_params(stride=2, size=(5, 5))),
    Case(permuted_view(2, 5, 5, 2), permuted_view(3, 3, 3, 2), **_params(padding=1, size=(5, 5))),
)
def conv2d_input_gradient(
    g: Any, w: Any, *, size: Pair, stride: Pair, padding: Pair, dilation: Pair, groups: int
) -> Any:
    """g (n, p, q, k), w (r, s, c/groups, k) -> dx (n, h, w, c) for images of `size` (h, w)."""
    r, s, cg, _ = w.shape
    columns = _grouped_outputs(g, groups) @ _grouped_weights(w, groups).transpose(0, 2, 1)
    columns = columns.reshape(groups, -1, r * s, cg).transpose(1, 2, 0, 3)
    columns = columns.reshape(*g.shape[:3], r, s, groups * cg)
    return col2im(columns, size=size, stride=stride, padding=padding, dilation=dilation)


@kernel(
    Case((2, 5, 6, 3), (2, 5, 6, 4), **_params(padding=1, window=(3, 3))),
    Case((3, 7, 5, 2), (3, 2, 8, 3), **_params((2, 1), (0, 2), (2, 1), window=(3, 2))),
    Case((2, 4, 4, 6), (2, 4, 4, 9), **_params(padding=1, groups=3, window=(3, 3))),
    Case((2, 4, 5, 4), (2, 4, 5, 3), **_params(window=(1, 1))),
    Case((1, 5, 5, 4), (1, 3, 3, 3), **_params(stride=2, window=(1, 1))),
    Case(permuted_view(2, 5, 5, 3), permuted_view(2, 5, 5, 2), **_params(padding=1, window=(3, 3))),
)
def conv2d_weight_gradient(
    x: Any, g: Any, *, window: Pair, stride: Pair, padding: Pair, dilation: Pair, groups: int
) -> Any:
    """x (n, h, w, c), g (n, p, q, k) -> dw (r, s, c/groups, k)."""
    columns = im2col(x, window=window, stride=stride, padding=padding, dilation=dilation)
    dw = _grouped_columns(columns, groups).transpose(0, 2, 1) @ _grouped_outputs(g, groups)
    return dw.transpose(1, 0, 2).reshape(*window, x.shape[3] // groups, g.shape[3])


def _one_group_of_floats(a: np.ndarray, b: np.ndarray, *, groups: int, **_: Any) -> bool:
    return groups == 1 and a.dtype == b.dtype and a.dtype.kind == "f"


def _is_pointwise(window: Pair, stride: Pair, padding: Pair) -> bool:
    """Whether the columns of x are x itself."""
    return (*window, *stride, *padding) == (1, 1, 1, 1, 0, 0)


def _chunks(images: int, bytes_an_image: int) -> Iterator[slice]:
    step = max(1, CHUNK // bytes_an_image)
    return (slice(start, min(start + step, images)) for start in range(0, images, step))


@conv2d.cpu(serves=_one_group_of_floats)
def _conv2d_cpu(
    x: np.ndarray, w: np.ndarray, *, stride: Pair, padding: Pair, dilation: Pair, groups: int
) -> np.ndarray:
    y = empty(_shape_of_output(x, w, stride, padding, dilation), x.dtype)
    n, p, q, k = y.shape
    depth = w.size // k
    matrix = np.ascontiguousarray(w).reshape(depth, k)
    if _is_pointwise(w.shape[:2], stride, padding):
        np.matmul(np.ascontiguousarray(x).reshape(-1, depth), matrix, out=y.reshape(-1, k))
        return y
    for images in _chunks(n, p * q * depth * x.itemsize):
        chunk = x[images]
        with workspace((len(chunk), p, q, *w.shape[:2], x.shape[3]), x.dtype) as columns:
            im2col(
                chunk,
                window=w.shape[:2],
                stride=stride,
                padding=padding,
                dilation=dilation,
                out=columns,
            )
            np.matmul(columns.reshape(-1, depth), matrix, out=y[images].reshape(-1, k))
    return y


@conv2d_input_gradient.cpu(serves=_one_group_of_floats)
def _conv2d_input_gradient_cpu(
    g: np.ndarray,
    w: np.ndarray,
    *,
    size: Pair,
    stride: Pair,
    padding: Pair,
    dilation: Pair,
    groups: int,
) -> np.ndarray:
    n, p, q, k = g.shape
    depth = w.size // k
    g, matrix = np.ascontiguousarray(g), w.reshape(depth, k).T
    dx = empty((n, *size, w.shape[2]), g.dtype)
    if _is_pointwise(w.shape[:2], stride, padding):
        np.matmul(g.reshape(-1, k), matrix, out=dx.reshape(-1, depth))
        return dx
    for images in _chunks(n, p * q * depth * g.itemsize):
        chunk = g[images]
        with workspace((len(chunk), p, q, *w.shape[:3]), g.dtype) as columns:
            np.matmul(chunk.reshape(-1, k), matrix, out=columns.reshape(-1, depth))
            dx[images] = col2im(
                columns, size=size, stride=stride, padding=padding, dilation=dilation
            )
    return dx


@conv2d_weight_gradient.cpu(serves=_one_group_of_floats)
def _conv2d_weight_gradient_cpu(
    x: np.ndarray,
    g: np.ndarray,
    *,
    window: Pair,
    stride: Pair,
    padding: Pair,
    dilation: Pair,
    groups: int,
) -> np.ndarray:
    n, p, q, k = g.shape
    depth = window[0] * window[1] * x.shape[3]
    g = np.ascontiguousarray(g)
    if _is_pointwise(window, stride, padding):
        dw = np.ascontiguousarray(x).reshape(-1, depth).T @ g.reshape(-1, k)
        return dw.reshape(*window, x.shape[3], k)
    dw = np.zeros((depth, k), x.dtype)
    for images in _chunks(n, p * q * depth * x.itemsize):
        chunk = x[images]
        with workspace((len(chunk), p, q, *window, x.shape[3]), x.dtype) as columns:
            im2col(
                chunk, window=window, stride=stride, padding=padding, dilation=dilation, out=columns
            )
            dw += columns.reshape(-1, depth).T @ g[images].reshape(-1, k)
    return dw.reshape(*window, x.shape[3], k)
