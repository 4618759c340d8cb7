"""Convolution and its two gradients as products with im2col columns.

    y  = columns(x) @ w                  (n·p·q, r·s·c) @ (r·s·c, k)
    dw = columns(x).T @ g
    dx = col2im(g @ w.T)

Images (n, h, w, c), weights (r, s, c / groups, k), outputs (n, p, q, k) with the outputs of one
group side by side. The references build all columns at once. The CPU twins do as `plan` says:
`winograd`, `tiled`, `direct` and `depthwise` are kernels of our own, `chunked` has the products of
a BLAS. The CUDA twins are in `conv_cuda`.

Source: Chellapilla, Puri and Simard, "High performance convolutional neural networks for document
processing", 2006.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from . import chunked, conv_cuda, depthwise, direct, tiled, winograd
from .activation import add_array
from .cases import Case, permuted_view
from .dispatch import kernel
from .finish import finish_array
from .im2col import Pair, by_group, col2im, conv_shape, im2col
from .plan import choose_convolution

__all__ = ["conv2d", "conv2d_input_gradient", "conv2d_weight_gradient"]


def _params(
    stride: Any = 1, padding: Any = 0, dilation: Any = 1, groups: int = 1, **more: Any
) -> dict[str, Any]:
    pairs = {"stride": stride, "padding": padding, "dilation": dilation}
    pairs = {name: (v, v) if isinstance(v, int) else v for name, v in pairs.items()}
    return {**pairs, "groups": groups, **more}


def _grouped_columns(columns: Any, groups: int) -> Any:
    """(n, p, q, r, s, c) -> (groups, n·p·q, r·s·c/groups); a view when there is one group."""
    n, p, q, r, s, c = columns.shape
    split = columns.reshape(n * p * q, r * s, groups, c // groups)
    return split.transpose(2, 0, 1, 3).reshape(groups, n * p * q, -1)


@kernel(
    Case((2, 5, 6, 3), (3, 3, 3, 4), **_params(padding=1)),
    Case((3, 7, 5, 2), (3, 2, 2, 3), **_params(stride=(2, 1), padding=(0, 2), dilation=(2, 1))),
    Case((2, 4, 4, 6), (3, 3, 2, 9), **_params(padding=1, groups=3)),
    Case((2, 4, 5, 4), (1, 1, 4, 3), **_params()),
    Case((1, 5, 5, 4), (1, 1, 4, 3), **_params(stride=2)),
    Case(permuted_view(2, 5, 5, 3), permuted_view(3, 3, 3, 2), **_params(padding=1)),
    Case((2, 5, 6, 3), (3, 3, 3, 4), (4,), (2, 5, 6, 4), **_params(padding=1, relu=True)),
    Case((4, 8, 9, 17), (3, 3, 17, 20), (20,), (4, 8, 9, 20), **_params(padding=1, relu=True)),
    Case((4, 8, 9, 17), (3, 3, 17, 20), None, (4, 8, 9, 20), **_params(padding=1)),
    Case((8, 8, 9, 6), (1, 1, 6, 20), (20,), permuted_view(8, 8, 9, 20), **_params(relu=True)),
    Case((8, 8, 9, 6), (2, 3, 6, 33), (33,), None, **_params(relu=True)),
    Case((8, 8, 9, 6), (2, 3, 6, 33), None, None, **_params(relu=True)),
    Case((2, 4, 4, 6), (3, 3, 2, 9), (9,), (2, 4, 4, 9), **_params(padding=1, groups=3)),
)
def conv2d(
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
    """x (n, h, w, c), w (r, s, c/groups, k) -> y (n, p, q, k), plus b (k,) and a residual like y,
    then max(·, 0) with `relu`.

    packed: where a twin keeps the form it brings w into, to find it there in the next call. It is
    the caller's, and for one w that does not change.
    """
    columns = im2col(x, window=w.shape[:2], stride=stride, padding=padding, dilation=dilation)
    y = _grouped_columns(columns, groups) @ by_group(w, groups)
    y = y.transpose(1, 0, 2).reshape(conv_shape(x, w, stride, padding, dilation))
    return finish_array(y, b, residual, relu)


@kernel(
    Case((2, 5, 6, 4), (3, 3, 3, 4), **_params(padding=1, size=(5, 6))),
    Case((3, 2, 8, 3), (3, 2, 2, 3), **_params((2, 1), (0, 2), (2, 1), size=(7, 5))),
    Case((2, 4, 4, 9), (3, 3, 2, 9), **_params(padding=1, groups=3, size=(4, 4))),
    Case((2, 4, 5, 3), (1, 1, 4, 3), **_params(size=(4, 5))),
    Case((1, 3, 3, 3), (1, 1, 4, 3), **_params(stride=2, size=(5, 5))),
    Case(permuted_view(2, 5, 5, 2), permuted_view(3, 3, 3, 2), **_params(padding=1, size=(5, 5))),
    Case((2, 5, 6, 4), (3, 3, 3, 4), (2, 5, 6, 3), **_params(padding=1, size=(5, 6))),
    Case((4, 8, 9, 17), (3, 3, 20, 17), (4, 8, 9, 20), **_params(padding=1, size=(8, 9))),
    Case((2, 4, 5, 3), (1, 1, 4, 3), permuted_view(2, 4, 5, 4), **_params(size=(4, 5))),
    Case((1, 3, 3, 3), (3, 3, 2, 3), (1, 5, 5, 2), **_params(2, 1, size=(5, 5))),
)
def conv2d_input_gradient(
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
    `total`, like dx, where it is given.
    """
    r, s, cg, _ = w.shape
    columns = by_group(g, groups) @ by_group(w, groups).transpose(0, 2, 1)
    columns = columns.reshape(groups, -1, r * s, cg).transpose(1, 2, 0, 3)
    columns = columns.reshape(*g.shape[:3], r, s, groups * cg)
    dx = col2im(columns, size=size, stride=stride, padding=padding, dilation=dilation)
    return finish_array(dx, None, total, False)


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
    dw = _grouped_columns(columns, groups).transpose(0, 2, 1) @ by_group(g, groups)
    return dw.transpose(1, 0, 2).reshape(*window, x.shape[3] // groups, g.shape[3])


def _same_floats(a: np.ndarray, b: np.ndarray, **_: Any) -> bool:
    return a.dtype == b.dtype and a.dtype.kind == "f"


def _serves_finish(x: Any, w: Any, b: Any = None, residual: Any = None, **_: Any) -> bool:
    same = all(a.dtype == x.dtype for a in (b, residual) if a is not None)
    return same and _same_floats(x, w)


def _serves_total(g: Any, w: Any, total: Any = None, **_: Any) -> bool:
    return _same_floats(g, w) and (total is None or total.dtype == g.dtype)


@conv2d.cpu(serves=_serves_finish)
def _conv2d_cpu(
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
    plan = choose_convolution(x.shape, w.shape, stride, padding, dilation, groups, x.dtype)
    finish: dict[str, Any] = {"relu": relu, "packed": packed}
    params: dict[str, Any] = {"stride": stride, "padding": padding, "dilation": dilation}
    if plan in ("winograd", "polyphase"):
        return winograd.convolve(x, w, b, residual, stride=stride, padding=padding, **finish)
    if plan == "tiled":
        return tiled.convolve(x, w, b, residual, **params, **finish)
    if plan == "direct":
        return direct.convolve(x, w, b, residual, **params, **finish, groups=groups)
    if plan == "depthwise":
        return finish_array(depthwise.convolve(x, w, **params), b, residual, relu)
    return chunked.convolve(x, w, b, residual, **params, groups=groups, relu=relu)


@conv2d_input_gradient.cpu(serves=_serves_total)
def _conv2d_input_gradient_cpu(
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
    images = len(g), *size, w.shape[2] * groups
    plan = choose_convolution(images, w.shape, stride, padding, dilation, groups, g.dtype)
    params = {"stride": stride, "padding": padding, "dilation": dilation}
    if plan in ("winograd", "polyphase"):
        steps = {"stride": stride, "padding": padding}
        return winograd.convolve_input_gradient(g, w, total, size=size, **steps)
    if plan == "tiled":
        return add_array(tiled.convolve_input_gradient(g, w, size=size, **params), total)
    if plan == "direct":
        dx = direct.convolve_input_gradient(g, w, size=size, **params, groups=groups)
        return add_array(dx, total)
    if plan == "depthwise":
        return add_array(depthwise.convolve_input_gradient(g, w, size=size, **params), total)
    return chunked.convolve_input_gradient(g, w, total, size=size, **params, groups=groups)


@conv2d_weight_gradient.cpu(serves=_same_floats)
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
    shape = *window, x.shape[3] // groups, g.shape[3]
    plan = choose_convolution(x.shape, shape, stride, padding, dilation, groups, x.dtype)
    params = {"stride": stride, "padding": padding, "dilation": dilation}
    if plan in ("winograd", "polyphase"):
        return winograd.convolve_weight_gradient(x, g, stride=stride, padding=padding)
    if plan == "tiled":
        return tiled.convolve_weight_gradient(x, g, window=window, **params)
    if plan == "direct":
        return direct.convolve_weight_gradient(x, g, window=window, **params, groups=groups)
    if plan == "depthwise":
        return depthwise.convolve_weight_gradient(x, g, window=window, **params)
    return chunked.convolve_weight_gradient(x, g, window=window, **params, groups=groups)


conv2d.cuda(serves=conv_cuda.serves_convolution)(conv_cuda.convolve)
conv2d_input_gradient.cuda(serves=conv_cuda.serves_convolution)(conv_cuda.convolve_input_gradient)
conv2d_weight_gradient.cuda(serves=conv_cuda.serves_convolution)(conv_cuda.convolve_weight_gradient)
