"""Operations that move elements without computing: their gradients move them back."""

from __future__ import annotations

import builtins
from typing import Any

import numpy as np

from ..backend import array_module, is_array
from ..errors import DTypeError, ShapeError
from ..kernels.cases import Case, permuted_view
from ..kernels.memory import empty, zeros
from ..kernels.strided import write_part
from ..op import op

__all__ = [
    "broadcast_to",
    "concatenate",
    "expand_dims",
    "flatten",
    "getitem",
    "pad",
    "reshape",
    "squeeze",
    "stack",
    "transpose",
]


def _axis(name: str, x: Any, axis: Any, ndim: int) -> int:
    """`axis` counted from the front, of a result with `ndim` axes."""
    if not hasattr(axis, "__index__") or not -ndim <= axis < ndim:
        raise ShapeError(f"{name}: axis {axis!r} does not fit x of shape {x.shape}")
    return axis % ndim


@op(
    Case((2, 6), shape=(3, 4)),
    Case((2, 3, 4), shape=(-1, 4)),
    Case(permuted_view(2, 3), shape=(6,)),
)
def reshape(x, *, shape):
    """The same elements in another shape; one size may be -1."""
    try:
        y = x.reshape(shape)
    except (TypeError, ValueError) as error:
        raise ShapeError(f"reshape: x of shape {x.shape} does not fit shape {shape}") from error
    return y, lambda g: (g.reshape(x.shape),)


@op(Case((2, 3, 4)), Case((2, 3, 4), start_axis=1))
def flatten(x, *, start_axis=0):
    """Merge the axes from `start_axis` on."""
    start_axis = _axis("flatten", x, start_axis, builtins.max(x.ndim, 1))
    return x.reshape(*x.shape[:start_axis], -1), lambda g: (g.reshape(x.shape),)


@op(Case((2, 3)), Case((2, 3, 4), axes=(2, 0, 1)))
def transpose(x, *, axes=None):
    """Permute the axes; None reverses them."""
    axes = tuple(range(x.ndim))[::-1] if axes is None else tuple(axes)
    outside = any(not -x.ndim <= a < x.ndim for a in axes)
    if outside or sorted(a % x.ndim for a in axes) != list(range(x.ndim)):
        raise ShapeError(f"transpose: axes {axes} is no permutation of the axes of shape {x.shape}")
    back = tuple(int(i) for i in np.argsort([a % x.ndim for a in axes]))
    return x.transpose(axes), lambda g: (g.transpose(back),)


@op(Case((2, 1, 3), axis=1))
def squeeze(x, *, axis):
    """Drop an axis of size 1."""
    axis = _axis("squeeze", x, axis, x.ndim)
    if x.shape[axis] != 1:
        raise ShapeError(f"squeeze: axis {axis} of shape {x.shape} has size {x.shape[axis]}, not 1")
    return x.squeeze(axis), lambda g: (g.reshape(x.shape),)


@op(Case((2, 3), axis=1))
def expand_dims(x, *, axis):
    """Insert an axis of size 1."""
    axis = _axis("expand_dims", x, axis, x.ndim + 1)
    return array_module(x).expand_dims(x, axis), lambda g: (g.reshape(x.shape),)


@op(Case((3, 1), shape=(2, 3, 4)))
def broadcast_to(x, *, shape):
    """Repeat x along new and size-1 axes."""
    leading = len(shape) - x.ndim
    if leading < 0 or any(n not in (1, m) for n, m in zip(x.shape, shape[leading:], strict=True)):
        raise ShapeError(f"broadcast_to: x of shape {x.shape} does not fit shape {tuple(shape)}")
    axes = (*range(leading), *(leading + i for i, n in enumerate(x.shape) if n == 1))

    def backward(g):
        return (g.sum(axis=axes, keepdims=True).reshape(x.shape),)

    return array_module(x).broadcast_to(x, shape), backward


@op(
    Case((2, 3), widths=((0, 1), (2, 0))),
    Case((1, 2, 2, 3), widths=((0, 0), (1, 1), (1, 1), (0, 0))),
)
def pad(x, *, widths, value=0):
    """Surround x with `value`; widths holds (before, after) for each axis."""
    pairs = isinstance(widths, tuple | list) and len(widths) == x.ndim
    if not pairs or any(len(pair) != 2 or min(pair) < 0 for pair in widths):
        raise ShapeError(
            f"pad: widths is {widths} but must be a pair of sizes for each axis of x={x.shape}"
        )
    inside = tuple(slice(a, a + n) for (a, _), n in zip(widths, x.shape, strict=True))
    y = empty(tuple(a + n + b for (a, b), n in zip(widths, x.shape)), x.dtype, like=x)
    line = array_module(x).full(y.shape[-1:], value, y.dtype)
    write_part(y, array_module(x).broadcast_to(line, y.shape), add=False)
    write_part(y[(*inside, ...)], x, add=False)
    return y, lambda g: (g[inside],)


def _is_basic(index: Any) -> bool:
    parts = index if isinstance(index, tuple) else (index,)
    return all(p is None or p is Ellipsis or isinstance(p, int | slice | np.integer) for p in parts)


def _view(x: Any, index: Any) -> Any:
    """x[index] for a basic index, but as a view even of a single element."""
    parts = index if isinstance(index, tuple) else (index,)
    return x[index if any(p is Ellipsis for p in parts) else (*parts, ...)]


@op(
    Case((3, 4), index=1),
    Case((5, 4), index=(slice(1, None, 2), slice(None, None, -1))),
    Case((3, 4), index=(Ellipsis, None, 2)),
    Case((4, 3), index=np.array([0, 2, 2])),
    Case((4, 3), index=(np.array([0, 2, 2]), np.array([1, 0, 0]))),
    Case((3,), index=np.array([True, False, True])),
)
def getitem(x, *, index):
    """x[index]: numbers, slices, None, ..., integer and boolean arrays, as in NumPy."""
    if hasattr(index, "array"):
        index = index.array
    elif isinstance(index, tuple):
        index = tuple(getattr(i, "array", i) for i in index)
    xp = array_module(x)

    def backward(g, _, take):
        total = take(0)
        dx = zeros(x.shape, x.dtype, like=x) if total is None else total
        if _is_basic(index):
            write_part(_view(dx, index), g, add=total is not None)
        else:
            xp.add.at(dx, index, g)  # an element that was taken twice gets both gradients
        return (dx,)

    return x[index], backward


def _check_all(name: str, xs: tuple[Any, ...]) -> Any:
    if not xs:
        raise ShapeError(f"{name}: needs at least one array")
    dtypes = list(dict.fromkeys(str(getattr(x, "dtype", type(x).__name__)) for x in xs))
    if len(dtypes) > 1 or not is_array(xs[0]):
        raise DTypeError(f"{name}: needs arrays of one dtype, got {', '.join(dtypes)}")
    return array_module(xs[0])


@op(Case((2, 3), (1, 3), (3, 3)), Case((2, 3), (2, 1), axis=-1))
def concatenate(*xs, axis=0):
    """Join arrays along an existing axis: `concatenate([a, b], axis=1)`."""
    xp = _check_all("concatenate", xs)
    try:
        y = xp.concatenate(xs, axis=axis)
    except ValueError as error:
        shapes = ", ".join(str(x.shape) for x in xs)
        raise ShapeError(f"concatenate: shapes {shapes} do not fit along axis {axis}") from error
    ends = np.cumsum([x.shape[axis] for x in xs])[:-1].tolist()
    return y, lambda g: tuple(xp.split(g, ends, axis=axis))


@op(Case((2, 3), (2, 3)), Case((2, 3), (2, 3), (2, 3), axis=1))
def stack(*xs, axis=0):
    """Join arrays of one shape along a new axis."""
    xp = _check_all("stack", xs)
    if len({x.shape for x in xs}) > 1:
        raise ShapeError(f"stack: shapes differ: {', '.join(str(x.shape) for x in xs)}")
    axis = _axis("stack", xs[0], axis, xs[0].ndim + 1)

    def backward(g):
        return tuple(xp.moveaxis(g, axis, 0))

    return xp.stack(xs, axis=axis), backward
