"""Functions that array modules lack: the error function, for the exact GELU."""

from __future__ import annotations

import math
from typing import Any

import numba
import numpy as np

from .cases import Case, permuted_view
from .dispatch import kernel

__all__ = ["erf"]


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
