"""Element-wise functions that array modules lack, or compute on one thread: the error function, for
the exact GELU, and sums of gradients.
"""

from __future__ import annotations

import math
from typing import Any

import numba
import numpy as np

from .cases import Case, permuted_view
from .dispatch import kernel

__all__ = ["add_array", "add_to", "erf"]

CHUNK = 1 << 14  # elements a task


@kernel(Case((3, 5)), Case(permuted_view(3, 4)))
def erf(x: Any) -> Any:
    """2/sqrt(pi) times the integral of exp(-t²) from 0 to x, element by element."""
    if isinstance(x, np.ndarray):
        return np.vectorize(math.erf, otypes=[x.dtype])(x) if x.size else x.copy()
    from cupyx.scipy.special import erf as cupy_erf  # type: ignore[import-not-found]

    return cupy_erf(x)


@erf.cpu(serves=lambda x: x.dtype.kind == "f")
def _erf_cpu(x: np.ndarray) -> np.ndarray:
    y = np.empty(x.shape, x.dtype)
    _erf_flat(np.ascontiguousarray(x).reshape(-1), y.reshape(-1))
    return y


@numba.njit(cache=True, parallel=True)
def _erf_flat(x, y):
    for i in numba.prange(x.size):
        y[i] = math.erf(x[i])


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
