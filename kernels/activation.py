"""Element-wise functions that array modules lack, or compute on one thread: the exact GELU, and
sums of gradients.
"""

from __future__ import annotations

import math
from typing import Any

import numba
import numpy as np

from .cases import Case, permuted_view
from .dispatch import array_module, kernel
from .launch import Source, flat_grid, same_floats
from .memory import empty
from .simd import float_of_bits

__all__ = ["add_array", "add_to", "gelu", "gelu_gradient"]

SOURCE = Source("activation.cu")
CHUNK = 1 << 14  # elements a task
NUMBER = np.float32
SQRT_HALF = math.sqrt(0.5)
DENSITY_AT_0 = 1 / math.sqrt(2 * math.pi)
LOG_2 = math.log(2)
LOG_2_HIGH = NUMBER(0.693359375)  # of few bits: its products with small integers are exact
LOG_2_LOW = NUMBER(LOG_2 - 0.693359375)


def _erfc(x: Any) -> Any:
    """2/sqrt(pi) times the integral of exp(-t²) from x to infinity, element by element."""
    if isinstance(x, np.ndarray):
        return np.vectorize(math.erfc, otypes=[x.dtype])(x) if x.size else x.copy()
    from cupyx.scipy.special import erfc  # type: ignore[import-not-found]

    return erfc(x)


@kernel(Case((3, 5)), Case((7, 357)), Case(permuted_view(3, 4)))
def gelu(x: Any) -> Any:
    """x · Φ(x) with the normal distribution function Φ.

    Source: Hendrycks and Gimpel 2016, arXiv:1606.08415.
    """
    return x * (0.5 * _erfc(x * -SQRT_HALF))


@kernel(Case((3, 5), (3, 5)), Case((7, 357), (7, 357)), Case(permuted_view(3, 4), (3, 4)))
def gelu_gradient(g: Any, x: Any) -> Any:
    """g · (Φ(x) + x · φ(x)) with the normal density φ = Φ'."""
    density = array_module(x).exp(-0.5 * x * x) * DENSITY_AT_0
    return g * (0.5 * _erfc(x * -SQRT_HALF) + x * density)


@gelu.cpu(serves=same_floats)
def _gelu_cpu(x: np.ndarray) -> np.ndarray:
    y = empty(x.shape, x.dtype)
    run = _gelu_in_vectors if _has_vectors(x) else _gelu
    run(np.ascontiguousarray(x).reshape(-1), y.reshape(-1))
    return y


@gelu_gradient.cpu(serves=same_floats)
def _gelu_gradient_cpu(g: np.ndarray, x: np.ndarray) -> np.ndarray:
    dx = empty(x.shape, x.dtype)
    run = _gelu_gradient_in_vectors if _has_vectors(x) else _gelu_gradient
    g, x = np.ascontiguousarray(g), np.ascontiguousarray(x)
    run(g.reshape(-1), x.reshape(-1), dx.reshape(-1))
    return dx


def _has_vectors(x: np.ndarray) -> bool:
    """Whether `_normal_in_vectors` can be used: float32, and compiled."""
    return x.dtype == np.float32 and not numba.config.DISABLE_JIT  # type: ignore[attr-defined]


@numba.njit(inline="always")
def _normal(x):
    """Φ(x) and φ(x)."""
    return 0.5 * math.erfc(x * -SQRT_HALF), math.exp(-0.5 * x * x) * DENSITY_AT_0


@numba.njit(inline="always")
def _normal_in_vectors(x):
    """The same of a float32 by operations that the compiler makes vectors of: ten times as fast.

    With a = |x| and a²/2 = n log 2 + r, exp(-a²/2) is 2^-n, made from its bits, times the series of
    exp(-r). The distribution function's tail 1 - Φ(a) is that times a polynomial in 1 / (1 + 0.3 a)
    without constant term (the form of Abramowitz and Stegun, 7.1.26; fitted for the least relative
    error up to a = 13.5, where it is 1.3e-7). From a = 13 on, numbers are too small to matter.
    """
    a = abs(x)
    a = a if a < NUMBER(13) else NUMBER(13)
    u = NUMBER(0.5) * a * a
    n = np.int32(u * NUMBER(1 / LOG_2) + NUMBER(0.5))
    r = (u - n * LOG_2_HIGH) - n * LOG_2_LOW
    power = NUMBER(1 / 720) - r * NUMBER(1 / 5040)
    power = NUMBER(1 / 120) - r * power
    power = NUMBER(1 / 24) - r * power
    power = NUMBER(1 / 6) - r * power
    power = NUMBER(1 / 2) - r * power
    power = NUMBER(1) - r * power
    power = NUMBER(1) - r * power
    power *= float_of_bits((np.int32(127) - n) << np.int32(23))
    t = NUMBER(1) / (NUMBER(1) + NUMBER(0.3) * a)
    tail = NUMBER(0.035931740845) * t + NUMBER(-0.158276023289)
    tail = tail * t + NUMBER(0.208206643647)
    tail = tail * t + NUMBER(-0.055393879517)
    tail = tail * t + NUMBER(0.129469216590)
    tail = tail * t + NUMBER(0.099637488569)
    tail = tail * t + NUMBER(0.120798359092)
    tail = tail * t + NUMBER(0.119626389680)
    tail *= power * t
    return tail if x < NUMBER(0) else NUMBER(1) - tail, power * NUMBER(DENSITY_AT_0)


# division by zero as NumPy does it: a check for it would keep the compiler from making vectors
_each = numba.njit(cache=True, parallel=True, error_model="numpy", fastmath={"contract"})


@_each
def _gelu(x, y):
    for i in numba.prange(x.size):
        y[i] = x[i] * _normal(x[i])[0]


@_each
def _gelu_in_vectors(x, y):
    for i in numba.prange(x.size):
        y[i] = x[i] * _normal_in_vectors(x[i])[0]


@_each
def _gelu_gradient(g, x, dx):
    for i in numba.prange(x.size):
        distribution, density = _normal(x[i])
        dx[i] = g[i] * (distribution + x[i] * density)


@_each
def _gelu_gradient_in_vectors(g, x, dx):
    for i in numba.prange(x.size):
        distribution, density = _normal_in_vectors(x[i])
        dx[i] = g[i] * (distribution + x[i] * density)


@gelu.cuda(serves=same_floats)
def _gelu_cuda(x: Any) -> Any:
    x, y = array_module(x).ascontiguousarray(x), empty(x.shape, x.dtype, like=x)
    SOURCE.launch("gelu", *flat_grid(x.size), x, y, x.size)
    return y


@gelu_gradient.cuda(serves=same_floats)
def _gelu_gradient_cuda(g: Any, x: Any) -> Any:
    g, x = (array_module(x).ascontiguousarray(a) for a in (g, x))
    dx = empty(x.shape, x.dtype, like=x)
    SOURCE.launch("gelu_gradient", *flat_grid(x.size), g, x, dx, x.size)
    return dx


@kernel(
    Case((3, 5), (3, 5)),
    Case((2, 3, 4), (2, 3, 4)),
    Case((70, 500), (70, 500)),
    Case(permuted_view(3, 4), (3, 4)),
)
def add_to(total: Any, x: Any) -> Any:
    """total += x, for arrays of one shape; returns total."""
    total += x
    return total


def _contiguous(total: np.ndarray, x: np.ndarray) -> bool:
    alike = total.dtype == x.dtype and total.dtype.kind == "f"
    return alike and all(a.flags.c_contiguous and a.flags.aligned for a in (total, x))


@add_to.cpu(serves=_contiguous)
def add_array(total: np.ndarray, x: np.ndarray | None) -> np.ndarray:
    """The same on all threads; x may be None."""
    if x is None:
        return total
    if total.size <= CHUNK or not _contiguous(total, x):  # waking threads would take longer
        total += x
    else:
        _add_flat(total.reshape(-1), x.reshape(-1))
    return total


@numba.njit(cache=True, parallel=True, nogil=True)
def _add_flat(total, x):
    for chunk in numba.prange((x.size + CHUNK - 1) // CHUNK):
        for i in range(chunk * CHUNK, min((chunk + 1) * CHUNK, x.size)):
            total[i] += x[i]
