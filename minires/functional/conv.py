"""Convolution and the dense layer: the operations with weights."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from ..backend import device_of
from ..errors import DTypeError, ShapeError
from ..kernels import conv as kernels
from ..kernels.cases import Case, permuted_view
from ..kernels.im2col import Pair, conv_shape, output_size
from ..kernels.memory import empty
from ..kernels.parallel import product
from ..kernels.product import multiply
from ..op import op
from .elementwise import need_float

__all__ = ["check_conv", "check_residual", "conv2d", "conv_bias", "linear", "pair"]


def pair(op_name: str, name: str, value: Any, least: int = 1) -> tuple[int, int]:
    """An int or a pair of ints as a pair, each at least `least`."""
    if type(value) is int and value >= least:
        return value, value
    both = (value, value) if not isinstance(value, tuple | list) else tuple(value)
    if len(both) != 2 or not all(isinstance(v, int) and v >= least for v in both):
        raise ShapeError(
            f"{op_name}: {name} is {value!r} but must be an int >= {least} or a pair of them"
        )
    return both  # type: ignore[return-value]


def check_dtypes(op_name: str, x: Any, **others: Any) -> Any:
    """The array module of `x`, checking that x is a float array and the others have its dtype."""
    xp = need_float(op_name, x)
    for name, other in others.items():
        if other is None:
            continue
        found = getattr(other, "dtype", None)
        if found is None or found != x.dtype:
            found = found or type(other).__name__
            raise DTypeError(f"{op_name}: x is {x.dtype} but {name} is {found}")
    return xp


def check_vector(op_name: str, name: str, v: Any, size: int) -> None:
    """Check that `v`, when given, has shape (size,)."""
    shape = getattr(v, "shape", ())
    if v is not None and shape != (size,):
        raise ShapeError(f"{op_name}: {name} has shape {shape} but must be ({size},)")


def check_conv(
    name: str, x: Any, w: Any, stride: Any, padding: Any, dilation: Any, groups: int
) -> dict[str, Any]:
    """Check the shapes of a convolution and return the keyword arguments of its kernels."""
    check_dtypes(name, x, w=w)
    params = {
        "stride": pair(name, "stride", stride),
        "padding": pair(name, "padding", padding, least=0),
        "dilation": pair(name, "dilation", dilation),
    }
    if not isinstance(groups, int):
        raise ShapeError(f"{name}: groups={groups} must be an int")
    _check_shapes(name, x.shape, w.shape, *params.values(), groups)
    return {**params, "groups": groups}


@lru_cache(maxsize=1024)
def _check_shapes(
    name: str,
    x: tuple[int, ...],
    w: tuple[int, ...],
    stride: Pair,
    padding: Pair,
    dilation: Pair,
    groups: int,
) -> None:
    """Check what does not change from step to step; so it is looked at once."""
    shapes = f"x={x}, w={w}"
    if len(x) != 4 or len(w) != 4:
        raise ShapeError(f"{name}: x must be (n, h, w, c) and w (r, s, c/groups, k): {shapes}")
    if groups < 1 or x[3] % groups or w[3] % groups:
        raise ShapeError(f"{name}: groups={groups} must divide the channels of x and w: {shapes}")
    if x[3] // groups != w[2]:
        expected = w[2] * groups
        raise ShapeError(f"{name}: x has {x[3]} channels but w expects {expected}: {shapes}")
    if 0 in x or 0 in w:
        raise ShapeError(f"{name}: an empty batch or image: {shapes}")
    sizes = zip(x[1:3], w[:2], stride, padding, dilation)
    if min(output_size(*size) for size in sizes) < 1:
        raise ShapeError(
            f"{name}: the window does not fit into the padded image: {shapes}, "
            f"stride={stride}, padding={padding}, dilation={dilation}"
        )


def check_residual(name: str, x: Any, residual: Any, shape: tuple[int, ...]) -> None:
    """Check that a residual, when given, is like the output of this shape."""
    check_dtypes(name, x, residual=residual)
    if residual is not None and residual.shape != shape:
        raise ShapeError(f"{name}: residual is {residual.shape} but the output {shape}")


@op(
    Case((2, 5, 5, 3), (3, 3, 3, 4)),
    Case((2, 6, 5, 3), (3, 3, 3, 2), (2,), padding=1),
    Case((1, 7, 7, 2), (3, 3, 2, 3), stride=2, padding=1),
    Case((2, 7, 6, 2), (3, 2, 2, 3), (3,), stride=(2, 1), padding=(0, 2), dilation=(2, 1)),
    Case((2, 4, 4, 4), (3, 3, 2, 6), padding=1, groups=2),
    Case((1, 4, 4, 3), (3, 3, 1, 3), (3,), padding=1, groups=3),
    Case((2, 4, 4, 3), (1, 1, 3, 5)),
    Case((2, 5, 5, 3), (1, 1, 3, 2), stride=2),
    Case((1, 6, 6, 1), (5, 5, 1, 2), padding=4, dilation=1),
    Case(permuted_view(2, 5, 5, 3), permuted_view(3, 3, 3, 2), padding=1),
)
def conv2d(x, w, b=None, *, stride=1, padding=0, dilation=1, groups=1):
    """Cross-correlation of images with learnt windows.

    x (n, h, w, c), w (r, s, c // groups, k), b (k,) or None -> (n, p, q, k) with
    p = (h + 2·padding - dilation·(r - 1) - 1) // stride + 1. Outputs are group-major: the first k
    // groups of them see the first c // groups channels. stride, padding, dilation: an int or a
    pair (vertical, horizontal).

    Raises ShapeError when ranks, channels or groups do not fit, DTypeError when the dtypes differ.

    >>> import numpy as np
    >>> import minires.functional as F
    >>> F.conv2d(np.ones((1, 4, 4, 3), np.float32), np.ones((3, 3, 3, 8), np.float32)).shape
    (1, 2, 2, 8)
    """
    params = check_conv("conv2d", x, w, stride, padding, dilation, groups)
    check_dtypes("conv2d", x, b=b)
    check_vector("conv2d", "b", b, w.shape[3])
    y = kernels.conv2d(x, w, b, **params)

    def backward(g, needs, take):
        return (
            *conv_gradients(g, x, w, params, needs, take),
            g.sum(axis=(0, 1, 2)) if needs[2:] == (True,) else None,
        )[: len(needs)]

    return y, backward


@op(
    Case((2, 4, 5, 3), (3, 3, 3, 2), (2,), (2, 4, 5, 2), padding=1, relu=True),
    Case((2, 4, 4, 3), (3, 3, 3, 2), (2,), (2, 2, 2, 2), padding=1, stride=2),
    Case((2, 4, 4, 2), (1, 1, 2, 3), None, (2, 4, 4, 3), relu=True),
    Case((2, 4, 4, 4), (3, 3, 2, 6), (6,), padding=1, relu=True, groups=2),
)
def conv_bias(
    x,
    w,
    b=None,
    residual=None,
    *,
    relu=False,
    stride=1,
    padding=0,
    dilation=1,
    groups=1,
    packed=None,
):
    """Convolution + b + residual, then ReLU: `conv_norm` with a bias in place of the BatchNorm.

    x (n, h, w, c), w (r, s, c // groups, k), b (k,) or None, residual (n, p, q, k) -> (n, p, q, k).
    packed: a dict in which the kernels keep the form they bring w into, for the next call; it
    belongs to the caller, and to one w that nobody changes.
    """
    params = check_conv("conv_bias", x, w, stride, padding, dilation, groups)
    check_dtypes("conv_bias", x, b=b)
    check_vector("conv_bias", "b", b, w.shape[3])
    if residual is not None:
        windows = (params[name] for name in ("stride", "padding", "dilation"))
        check_residual("conv_bias", x, residual, conv_shape(x, w, *windows))
    y = kernels.conv2d(x, w, b, residual, relu=relu, packed=packed, **params)

    def backward(g, needs, take):
        dz = g * (y > 0) if relu else g
        db = dz.sum((0, 1, 2)) if needs[2:3] == (True,) else None
        return (*conv_gradients(dz, x, w, params, needs, take), db, dz)[: len(needs)]

    return y, backward


def conv_gradients(
    g: Any, x: Any, w: Any, params: dict[str, Any], needs: Any, take: Any
) -> tuple[Any, Any]:
    """(dx, dw) of a convolution, each None where it is not needed; dx with what `take` has."""
    dx = dw = None
    if needs[0]:
        dx = kernels.conv2d_input_gradient(g, w, take(0), size=x.shape[1:3], **params)
    if needs[1]:
        dw = kernels.conv2d_weight_gradient(x, g, window=w.shape[:2], **params)
    return dx, dw


@op(Case((4, 3), (3, 2)), Case((4, 3), (3, 2), (2,)), Case((2, 5, 3), (3, 2), (2,)))
def linear(x, w, b=None):
    """x @ w + b. x (…, in), w (in, out), b (out,) or None -> (…, out)."""
    check_dtypes("linear", x, w=w, b=b)
    if w.ndim != 2 or x.ndim < 1 or x.shape[-1] != w.shape[0]:
        raise ShapeError(f"linear: x (…, in) and w (in, out) do not fit: x={x.shape}, w={w.shape}")
    check_vector("linear", "b", b, w.shape[1])
    y = _product(x, w)
    if b is not None:
        y += b

    def backward(g, needs):
        rows = g.reshape(-1, w.shape[1])
        dx = _product(g, w.T) if needs[0] else None
        dw = _product(x.reshape(-1, w.shape[0]).T, rows) if needs[1] else None
        db = rows.sum(axis=0) if needs[2:] == (True,) else None
        return (dx, dw, db)[: len(needs)]

    return y, backward


def _product(a: Any, b: Any) -> Any:
    """a @ b for a (…, m) and b (m, k)."""
    if device_of(a) == "cpu":
        return product(a, b)
    y = empty((*a.shape[:-1], b.shape[1]), a.dtype, like=a)
    rows = a if a.ndim == 2 else a.reshape(-1, a.shape[-1])
    rows, b = (v if v.itemsize in v.strides and 0 not in v.strides else v.copy() for v in (rows, b))
    multiply(rows[None], b[None], y.reshape(1, -1, b.shape[1]))
    return y
