"""BatchNorm in four passes over memory: the statistics, the application (with residual and ReLU),
and the two of the gradient.

Every kernel sees x as rows of c channels. The CPU twins read each array once a pass; statistics are
gathered over a fixed number of row ranges and merged in float64 in a fixed order, so that they do
not depend on the number of threads.

Sources: Ioffe and Szegedy 2015, arXiv:1502.03167; Chan, Golub and LeVeque 1979 for merging the
moments.
"""

from __future__ import annotations

from typing import Any

import numba
import numpy as np

from .cases import Case, permuted_view
from .dispatch import array_module, kernel
from .memory import empty

__all__ = ["channel_moments", "gradient_sums", "normalise", "normalise_gradient"]

PARTS = 16  # row ranges, each summed by one thread
ROWS = 64  # rows that are summed in x's own precision before float64 takes over


@kernel(Case((2, 5, 6, 3)), Case((700, 2)), Case((1, 4)), Case(permuted_view(3, 4, 5)))
def channel_moments(x: Any) -> tuple[Any, Any]:
    """Mean and biased variance of x (…, c) over all axes but the last, as float64 (c,)."""
    rows = x.reshape(-1, x.shape[-1]).astype(np.float64)
    return rows.mean(axis=0), rows.var(axis=0)


@kernel(
    Case((2, 5, 6, 3), (3,), (3,), None, relu=False),
    Case((2, 3, 3, 4), (4,), (4,), (2, 3, 3, 4), relu=True),
    Case((700, 2), (2,), (2,), None, relu=True),
    Case(permuted_view(3, 4, 5), (5,), (5,), permuted_view(3, 4, 5), relu=False),
)
def normalise(x: Any, scale: Any, shift: Any, residual: Any = None, *, relu: bool) -> Any:
    """x · scale + shift (+ residual), then max(·, 0) with `relu`. scale, shift (c,); residual like
    x.
    """
    y = x * scale.astype(x.dtype) + shift.astype(x.dtype)
    if residual is not None:
        y += residual
    return array_module(x).maximum(y, 0) if relu else y


@kernel(
    Case((2, 5, 6, 3), (2, 5, 6, 3), (3,), None),
    Case((700, 2), (700, 2), (2,), (700, 2)),
    Case(permuted_view(3, 4, 5), permuted_view(3, 4, 5), (5,), permuted_view(3, 4, 5)),
)
def gradient_sums(g: Any, x: Any, mean: Any, y: Any = None) -> tuple[Any, Any]:
    """Sums over all axes but the last of g and of g · (x - mean), float64 (c,).

    Where `y`, the output of a ReLU, is given, g counts only where y > 0.
    """
    axes = tuple(range(x.ndim - 1))
    g = (g if y is None else g * (y > 0)).astype(np.float64)
    return g.sum(axis=axes), (g * (x.astype(np.float64) - mean)).sum(axis=axes)


@kernel(
    Case((2, 5, 6, 3), (2, 5, 6, 3), (3,), (3,), (3,), None, want_masked=False),
    Case((2, 5, 6, 3), (2, 5, 6, 3), (3,), (3,), (3,), (2, 5, 6, 3), want_masked=False),
    Case((700, 2), (700, 2), (2,), (2,), (2,), (700, 2), want_masked=True),
    Case(
        permuted_view(3, 4),
        permuted_view(3, 4),
        (4,),
        (4,),
        (4,),
        permuted_view(3, 4),
        want_masked=True,
    ),
)
def normalise_gradient(
    g: Any, x: Any, a: Any, b: Any, d: Any, y: Any = None, *, want_masked: bool
) -> tuple[Any, Any]:
    """(a·g + b·x + d, g), with g masked by y > 0 where y is given; the masked g is None unless
    wanted.

    a, b, d are (c,): with them the first result is BatchNorm's input gradient, the second the
    residual's.
    """
    a, b, d = (v.astype(x.dtype) for v in (a, b, d))
    if y is not None:
        g = g * (y > 0)
    return a * g + b * x + d, g if want_masked else None


def _floats(x: np.ndarray, *others: Any, **_: Any) -> bool:
    arrays = [x, *(o for o in others if o is not None and o.ndim == x.ndim)]
    return x.dtype.kind == "f" and x.size > 0 and all(a.dtype == x.dtype for a in arrays)


def _rows(x: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(x).reshape(-1, x.shape[-1])


@channel_moments.cpu(serves=_floats)
def _channel_moments_cpu(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    rows = _rows(x)
    parts = np.zeros((PARTS, 2, rows.shape[1]))
    _moments(rows, parts)
    return _merge(parts, len(rows))


def _merge(parts: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Chan's rule: join the (mean, sum of squared deviations) of the row ranges, first to last."""
    mean, squares, seen = np.zeros(parts.shape[2]), np.zeros(parts.shape[2]), 0
    for t, (part_mean, part_squares) in enumerate(parts):
        new = (t + 1) * count // PARTS - t * count // PARTS
        if new:
            delta = part_mean - mean
            mean = mean + delta * (new / (seen + new))
            squares = squares + part_squares + delta * delta * (seen * new / (seen + new))
            seen += new
    return mean, squares / count


@numba.njit(cache=True, parallel=True, fastmath={"reassoc", "contract"})
def _moments(x, parts):
    count, c = x.shape
    for t in numba.prange(PARTS):
        sum_d, sum_dd = np.empty(c, x.dtype), np.empty(c, x.dtype)
        mean, squares = parts[t, 0], parts[t, 1]
        low, high = t * count // PARTS, (t + 1) * count // PARTS
        for start in range(low, high, ROWS):
            end = min(start + ROWS, high)
            new, seen = end - start, start - low
            sum_d[:] = 0
            sum_dd[:] = 0
            for i in range(start, end):
                for k in range(c):
                    d = x[i, k] - x[start, k]  # from a value of the block: nothing cancels later
                    sum_d[k] += d
                    sum_dd[k] += d * d
            for k in range(c):
                total = np.float64(sum_d[k])
                delta = np.float64(x[start, k]) + total / new - mean[k]
                mean[k] += delta * new / (seen + new)
                squares[k] += np.float64(sum_dd[k]) - total * total / new
                squares[k] += delta * delta * seen * new / (seen + new)


@normalise.cpu(serves=_floats)
def _normalise_cpu(
    x: np.ndarray, scale: np.ndarray, shift: np.ndarray, residual: Any = None, *, relu: bool
) -> np.ndarray:
    y = empty(x.shape, x.dtype)
    rows = _rows(x)
    has_residual = residual is not None
    _apply(
        rows,
        scale.astype(x.dtype),
        shift.astype(x.dtype),
        _rows(residual) if has_residual else rows,
        y.reshape(rows.shape),
        has_residual,
        relu,
    )
    return y


@numba.njit(cache=True, parallel=True)
def _apply(x, scale, shift, residual, y, has_residual, relu):
    count, c = x.shape
    lowest = x.dtype.type(0) if relu else x.dtype.type(-np.inf)
    for t in numba.prange(PARTS):
        for i in range(t * count // PARTS, (t + 1) * count // PARTS):
            if has_residual:
                for k in range(c):
                    v = x[i, k] * scale[k] + shift[k] + residual[i, k]
                    y[i, k] = lowest if v < lowest else v  # NaN stays NaN
            else:
                for k in range(c):
                    v = x[i, k] * scale[k] + shift[k]
                    y[i, k] = lowest if v < lowest else v


@gradient_sums.cpu(serves=_floats)
def _gradient_sums_cpu(
    g: np.ndarray, x: np.ndarray, mean: np.ndarray, y: Any = None
) -> tuple[np.ndarray, np.ndarray]:
    rows = _rows(x)
    parts = np.zeros((PARTS, 2, rows.shape[1]))
    mask = rows if y is None else _rows(y)
    _sums(_rows(g), rows, mean.astype(x.dtype), mask, parts, y is not None)
    return parts[:, 0].sum(axis=0), parts[:, 1].sum(axis=0)


@numba.njit(cache=True, parallel=True, fastmath={"reassoc", "contract"})
def _sums(g, x, mean, y, parts, masked):
    count, c = x.shape
    zero = x.dtype.type(0)
    for t in numba.prange(PARTS):
        sum_g, sum_gx = np.empty(c, x.dtype), np.empty(c, x.dtype)
        low, high = t * count // PARTS, (t + 1) * count // PARTS
        for start in range(low, high, ROWS):
            sum_g[:] = 0
            sum_gx[:] = 0
            for i in range(start, min(start + ROWS, high)):
                for k in range(c):
                    v = g[i, k] if not masked or y[i, k] > 0 else zero
                    sum_g[k] += v
                    sum_gx[k] += v * (x[i, k] - mean[k])
            for k in range(c):
                parts[t, 0, k] += sum_g[k]
                parts[t, 1, k] += sum_gx[k]


@normalise_gradient.cpu(serves=_floats)
def _normalise_gradient_cpu(
    g: np.ndarray, x: np.ndarray, a: Any, b: Any, d: Any, y: Any = None, *, want_masked: bool
) -> tuple[np.ndarray, Any]:
    rows = _rows(x)
    dx = empty(x.shape, x.dtype)
    masked_g = empty(x.shape, x.dtype) if want_masked else dx
    a, b, d = (v.astype(x.dtype) for v in (a, b, d))
    mask = rows if y is None else _rows(y)
    outputs = dx.reshape(rows.shape), masked_g.reshape(rows.shape)
    _gradient(_rows(g), rows, a, b, d, mask, *outputs, y is not None, want_masked)
    return dx, masked_g if want_masked else None


@numba.njit(cache=True, parallel=True)
def _gradient(g, x, a, b, d, y, dx, masked_g, masked, want_masked):
    count, c = x.shape
    zero = x.dtype.type(0)
    for t in numba.prange(PARTS):
        for i in range(t * count // PARTS, (t + 1) * count // PARTS):
            for k in range(c):
                v = g[i, k] if not masked or y[i, k] > 0 else zero
                if want_masked:
                    masked_g[i, k] = v
                dx[i, k] = a[k] * v + b[k] * x[i, k] + d[k]
