"""The arithmetic behind Python's operators, with broadcasting."""

from __future__ import annotations

from typing import Any

from ..backend import array_module, is_array
from ..errors import ShapeError
from ..kernels.cases import Case, positive
from ..op import op

__all__ = ["add", "astype", "div", "matmul", "mul", "neg", "power", "sub", "unbroadcast"]


def unbroadcast(g: Any, shape: tuple[int, ...]) -> Any:
    """Sum `g` over the axes along which an operand of `shape` was repeated."""
    if g.shape == shape:
        return g
    leading = g.ndim - len(shape)
    repeated = [leading + i for i, n in enumerate(shape) if n == 1 and g.shape[leading + i] != 1]
    return g.sum(axis=(*range(leading), *repeated), keepdims=True).reshape(shape)


def _shape(x: Any) -> tuple[int, ...]:
    return getattr(x, "shape", ())  # a Python number has none


def _pair(name: str, x: Any, y: Any) -> tuple[Any, Any]:
    """Check that two operands broadcast; an integer array beside a float one takes its dtype."""
    if isinstance(x, int | float) or isinstance(y, int | float):
        return x, y
    if x.shape != y.shape:
        for a, b in zip(x.shape[::-1], y.shape[::-1], strict=False):
            if a != b and 1 not in (a, b):
                raise ShapeError(f"{name}: shapes {x.shape} and {y.shape} do not broadcast")
    return _common_dtype(x, y)


def _common_dtype(x: Any, y: Any) -> tuple[Any, Any]:
    """An integer array beside a float one takes its dtype; two floats stay for NumPy to promote."""
    if x.dtype is not y.dtype:
        if x.dtype.kind == "f" != y.dtype.kind:
            return x, y.astype(x.dtype)
        if y.dtype.kind == "f" != x.dtype.kind:
            return x.astype(y.dtype), y
    return x, y


@op(Case((2, 3), (2, 3)), Case((2, 3), (3,)), Case((2, 1, 3), (4, 1)), Case((), (2, 2)))
def add(x, y):
    """x + y."""
    x, y = _pair("add", x, y)

    def backward(g, needs):
        return (
            unbroadcast(g, _shape(x)) if needs[0] else None,
            unbroadcast(g, _shape(y)) if needs[1] else None,
        )

    return x + y, backward


@op(Case((2, 3), (2, 3)), Case((3,), (2, 3)), Case((2, 1, 3), (4, 1)))
def sub(x, y):
    """x - y."""
    x, y = _pair("sub", x, y)

    def backward(g, needs):
        return (
            unbroadcast(g, _shape(x)) if needs[0] else None,
            unbroadcast(-g, _shape(y)) if needs[1] else None,
        )

    return x - y, backward


@op(Case((2, 3), (2, 3)), Case((3,), (2, 3)), Case((2, 1, 3), (4, 1)))
def mul(x, y):
    """x * y."""
    x, y = _pair("mul", x, y)

    def backward(g, needs):
        return (
            unbroadcast(g * y, _shape(x)) if needs[0] else None,
            unbroadcast(g * x, _shape(y)) if needs[1] else None,
        )

    return x * y, backward


@op(Case((2, 3), positive(2, 3)), Case((3,), positive(2, 3)), Case((2, 1, 3), positive(4, 1)))
def div(x, y):
    """x / y."""
    x, y = _pair("div", x, y)

    def backward(g, needs):
        return (
            unbroadcast(g / y, _shape(x)) if needs[0] else None,
            unbroadcast(-g * x / (y * y), _shape(y)) if needs[1] else None,
        )

    return x / y, backward


@op(Case((2, 3)))
def neg(x):
    """-x."""
    return -x, lambda g: (-g,)


@op(Case(positive(2, 3), (2, 3)), Case(positive(2, 3), (3,)), Case((2, 3), 2, wrt=[0]))
def power(x, y):
    """x ** y. The gradient for y needs x > 0."""
    x, y = _pair("power", x, y)
    z = x**y

    def backward(g, needs):
        dx = dy = None
        if needs[0]:
            dx = unbroadcast(g * y * x ** (y - 1), _shape(x))
        if needs[1]:
            xp = array_module(z)
            dy = unbroadcast(g * z * xp.log(x), _shape(y))
        return dx, dy

    return z, backward


@op(
    Case((2, 3), (3, 4)),
    Case((3,), (3, 4)),
    Case((2, 3), (3,)),
    Case((3,), (3,)),
    Case((5, 2, 3), (3, 4)),
    Case((5, 1, 2, 3), (2, 3, 4)),
)
def matmul(x, y):
    """Matrix product x @ y of (…, m, k) and (…, k, n); leading axes broadcast, vectors as in
    NumPy.
    """
    if not (is_array(x) and is_array(y) and x.ndim and y.ndim):
        raise ShapeError(
            f"matmul: needs arrays with at least one axis, got {_shape(x)}, {_shape(y)}"
        )
    if x.shape[-1] != y.shape[-2 if y.ndim > 1 else 0]:
        raise ShapeError(f"matmul: inner sizes differ: {x.shape} @ {y.shape}")
    for a, b in zip(x.shape[-3::-1], y.shape[-3::-1], strict=False):
        if a != b and 1 not in (a, b):
            raise ShapeError(f"matmul: leading axes do not broadcast: {x.shape} @ {y.shape}")
    x, y = _common_dtype(x, y)

    def backward(g, needs):
        # vectors become matrices of one row or one column
        a = x[None, :] if x.ndim == 1 else x
        b = y[:, None] if y.ndim == 1 else y
        g = g[..., None] if y.ndim == 1 else g
        g = g[..., None, :] if x.ndim == 1 else g
        dx = dy = None
        if needs[0]:
            dx = unbroadcast(g @ b.swapaxes(-1, -2), a.shape).reshape(x.shape)
        if needs[1]:
            dy = unbroadcast(a.swapaxes(-1, -2) @ g, b.shape).reshape(y.shape)
        return dx, dy

    return x @ y, backward


@op(Case((2, 3), dtype="float64"))
def astype(x, *, dtype):
    """x in another dtype; the gradient returns in x's."""
    return x.astype(dtype), lambda g: (g,)
