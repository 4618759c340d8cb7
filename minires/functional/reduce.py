"""Reductions over axes: sum, mean, variance, maximum, minimum."""

from __future__ import annotations

from typing import Any

from ..errors import ShapeError
from ..kernels.cases import Case, distinct, permuted_view
from ..op import op
from .elementwise import need_float

__all__ = ["max", "mean", "min", "sum", "var"]


def _axes(name: str, x: Any, axis: Any) -> tuple[int, ...]:
    """`axis` as a tuple of non-negative axes; None means all of them."""
    wanted = range(x.ndim) if axis is None else axis if isinstance(axis, tuple | list) else (axis,)
    for a in wanted:
        if not hasattr(a, "__index__") or not -x.ndim <= a < x.ndim:
            raise ShapeError(f"{name}: axis {a!r} is not an axis of x with shape {x.shape}")
    axes = tuple(a % x.ndim for a in wanted)
    if len(set(axes)) < len(axes):
        raise ShapeError(f"{name}: axis {axis} names an axis of x with shape {x.shape} twice")
    return axes


def _expand(y: Any, x: Any, axes: tuple[int, ...]) -> Any:
    """The reduced `y` with its axes back as size 1, so that it broadcasts against x."""
    return y.reshape([1 if i in axes else n for i, n in enumerate(x.shape)])


def _count(name: str, x: Any, axes: tuple[int, ...]) -> int:
    count = 1
    for a in axes:
        count *= x.shape[a]
    if count == 0:
        raise ShapeError(f"{name}: no elements to reduce: x has shape {x.shape}")
    return count


@op(Case((2, 3)), Case((2, 3, 4), axis=1), Case((2, 3, 4), axis=(0, -1), keepdims=True))
def sum(x, *, axis=None, keepdims=False):
    """The sum over `axis` (an int, a tuple, or None for all)."""
    xp = need_float("sum", x)
    axes = _axes("sum", x, axis)

    def backward(g):
        return (xp.broadcast_to(_expand(g, x, axes), x.shape),)

    return x.sum(axis=axes, keepdims=keepdims), backward


@op(Case((2, 3)), Case((2, 3, 4), axis=(1, 2)), Case(permuted_view(3, 4), axis=0, keepdims=True))
def mean(x, *, axis=None, keepdims=False):
    """The mean over `axis`."""
    xp = need_float("mean", x)
    axes = _axes("mean", x, axis)
    count = _count("mean", x, axes)

    def backward(g):
        return (xp.broadcast_to(_expand(g / count, x, axes), x.shape),)

    return x.mean(axis=axes, keepdims=keepdims), backward


@op(Case((3, 4)), Case((3, 4), axis=0, ddof=1), Case((2, 3, 4), axis=(0, 2), keepdims=True))
def var(x, *, axis=None, keepdims=False, ddof=0):
    """The variance over `axis`: squared deviations from the mean, summed, over n - ddof."""
    need_float("var", x)
    axes = _axes("var", x, axis)
    count = _count("var", x, axes) - ddof
    if count <= 0:
        raise ShapeError(
            f"var: ddof is {ddof} but x of shape {x.shape} gives {count + ddof} values"
        )
    centred = x - x.mean(axis=axes, keepdims=True)

    def backward(g):
        return (_expand(g, x, axes) * centred * (2 / count),)

    return (centred * centred).sum(axis=axes, keepdims=keepdims) / count, backward


def _extreme(name: str, x: Any, axis: Any, keepdims: bool) -> Any:
    """max or min; elements that tie share the gradient."""
    need_float(name, x)
    axes = _axes(name, x, axis)
    _count(name, x, axes)
    y = getattr(x, name)(axis=axes, keepdims=keepdims)

    def backward(g):
        hit = (x == _expand(y, x, axes)).astype(x.dtype)
        return (hit * _expand(g, x, axes) / hit.sum(axis=axes, keepdims=True),)

    return y, backward


@op(
    Case(distinct(2, 3)),
    Case(distinct(2, 3, 4), axis=1),
    Case(distinct(2, 6), axis=-1, keepdims=True),
)
def max(x, *, axis=None, keepdims=False):
    """The maximum over `axis`."""
    return _extreme("max", x, axis, keepdims)


@op(Case(distinct(2, 3)), Case(distinct(2, 3, 4), axis=(0, 1)))
def min(x, *, axis=None, keepdims=False):
    """The minimum over `axis`."""
    return _extreme("min", x, axis, keepdims)
