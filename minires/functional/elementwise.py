"""Functions of one array, element by element, and those that choose between elements."""

from __future__ import annotations

import math
from typing import Any

from ..backend import array_module
from ..errors import DTypeError
from ..kernels import activation
from ..kernels.cases import Case, away_from, distinct, permuted_view, positive
from ..op import op
from .arithmetic import _pair, _shape, unbroadcast

__all__ = [
    "abs",
    "clip",
    "exp",
    "gelu",
    "leaky_relu",
    "log",
    "maximum",
    "minimum",
    "relu",
    "sigmoid",
    "silu",
    "sqrt",
    "tanh",
    "where",
]


def need_float(name: str, x: Any) -> Any:
    """The array module of `x`, which must be float32 or float64."""
    if getattr(x, "dtype", None) is None or x.dtype.char not in "fd":
        found = getattr(x, "dtype", type(x).__name__)
        raise DTypeError(f"{name}: x must be float32 or float64, got {found}")
    return array_module(x)


@op(Case((2, 3)), Case(permuted_view(3, 4)))
def exp(x):
    """e to the power x."""
    y = need_float("exp", x).exp(x)
    return y, lambda g: (g * y,)


@op(Case(positive(2, 3)))
def log(x):
    """The natural logarithm."""
    return need_float("log", x).log(x), lambda g: (g / x,)


@op(Case(positive(2, 3)))
def sqrt(x):
    """The square root."""
    y = need_float("sqrt", x).sqrt(x)
    return y, lambda g: (g / (2 * y),)


@op(Case(away_from(0, 2, 3)))
def abs(x):
    """|x|, with gradient 0 at 0."""
    xp = need_float("abs", x)
    return xp.abs(x), lambda g: (g * xp.sign(x),)


@op(Case((2, 3)))
def tanh(x):
    """The hyperbolic tangent."""
    y = need_float("tanh", x).tanh(x)
    return y, lambda g: (g * (1 - y * y),)


def _sigmoid(x: Any) -> Any:
    """1 / (1 + e^-x) through tanh, which never overflows."""
    return 0.5 * array_module(x).tanh(0.5 * x) + 0.5


@op(Case((2, 3)))
def sigmoid(x):
    """1 / (1 + e^-x)."""
    need_float("sigmoid", x)
    y = _sigmoid(x)
    return y, lambda g: (g * y * (1 - y),)


@op(Case((2, 3)))
def silu(x):
    """x · sigmoid(x), also called swish. Source: Elfwing et al. 2017, arXiv:1702.03118."""
    need_float("silu", x)
    s = _sigmoid(x)
    return x * s, lambda g: (g * s * (1 + x * (1 - s)),)


@op(Case(away_from(0, 2, 3)), Case(permuted_view(3, 4)))
def relu(x):
    """max(x, 0), with gradient 0 at 0."""
    y = need_float("relu", x).maximum(x, 0)
    return y, lambda g: (g * (y > 0),)


@op(Case(away_from(0, 2, 3)), Case(away_from(0, 2, 3), slope=0.2))
def leaky_relu(x, *, slope=0.01):
    """x where positive, slope · x elsewhere."""
    xp = need_float("leaky_relu", x)
    factor = xp.where(x > 0, 1, slope).astype(x.dtype)
    return x * factor, lambda g: (g * factor,)


@op(Case((2, 3)), Case((2, 3), approximate="tanh"))
def gelu(x, *, approximate="none"):
    """x · Φ(x) with the normal distribution function Φ, exactly or by the tanh formula.

    Source: Hendrycks and Gimpel 2016, arXiv:1606.08415.
    """
    xp = need_float("gelu", x)
    if approximate == "none":
        return activation.gelu(x), lambda g: (activation.gelu_gradient(g, x),)
    if approximate != "tanh":
        raise ValueError(f"gelu: approximate is {approximate!r} but must be 'none' or 'tanh'")
    c = math.sqrt(2 / math.pi)
    t = xp.tanh(c * (x + 0.044715 * x * x * x))
    slope = (1 - t * t) * c * (1 + 3 * 0.044715 * x * x)
    return 0.5 * x * (1 + t), lambda g: (g * (0.5 * (1 + t) + 0.5 * x * slope),)


def _choose(name: str, x: Any, y: Any, larger: bool) -> Any:
    """maximum or minimum; a tie gives each side half of the gradient."""
    x, y = _pair(name, x, y)
    xp = array_module(x if hasattr(x, "dtype") else y)

    def backward(g, needs):
        takes_x = 0.5 * ((x > y) if larger else (x < y)) + 0.5 * ((x >= y) if larger else (x <= y))
        takes_x = takes_x.astype(g.dtype)
        return (
            unbroadcast(g * takes_x, _shape(x)) if needs[0] else None,
            unbroadcast(g * (1 - takes_x), _shape(y)) if needs[1] else None,
        )

    return (xp.maximum if larger else xp.minimum)(x, y), backward


@op(Case(distinct(2, 3), positive(3)), Case(away_from(0, 2, 3), 0))
def maximum(x, y):
    """The larger of x and y, element by element."""
    return _choose("maximum", x, y, larger=True)


@op(Case(distinct(2, 3), positive(3)))
def minimum(x, y):
    """The smaller of x and y, element by element."""
    return _choose("minimum", x, y, larger=False)


@op(Case(distinct(2, 5), low=-0.31, high=0.27))
def clip(x, *, low=None, high=None):
    """x limited to [low, high]; the gradient is 0 outside."""
    xp = need_float("clip", x)
    y = xp.clip(x, low, high)
    return y, lambda g: (g * (x == y),)


@op(Case(lambda rng, dtype: rng.random((2, 3)) < 0.5, (2, 3), (3,)))
def where(condition, x, y):
    """x where the boolean array `condition` holds, y elsewhere."""
    x, y = _pair("where", x, y)
    xp = array_module(condition)

    def backward(g, needs):
        zero = g.dtype.type(0)
        return (
            None,
            unbroadcast(xp.where(condition, g, zero), _shape(x)) if needs[1] else None,
            unbroadcast(xp.where(condition, zero, g), _shape(y)) if needs[2] else None,
        )

    return xp.where(condition, x, y), backward
