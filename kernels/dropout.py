"""Dropout whose mask is never stored: the same key draws it again for the gradient."""

from __future__ import annotations

from typing import Any

import numba
import numpy as np

from .cases import Case, permuted_view
from .dispatch import array_module, kernel
from .launch import Source, flat_grid, from_memory, same_floats
from .memory import empty
from .random import Key, philox, uniform

__all__ = ["drop"]

SOURCE = Source("dropout.cu")


@kernel(
    Case((3, 5), p=0.3, key=Key(1, 2, 3)),
    Case((67,), p=0.5, key=Key(2**40, 0, 9)),
    Case(permuted_view(3, 4), p=0.1, key=Key(5)),
)
def drop(x: Any, *, p: float, key: Key) -> Any:
    """x / (1 - p) where the uniform number of that element is at least p, else 0."""
    kept = array_module(x).asarray(uniform(key, x.shape) >= np.float32(p))
    return x * kept * x.dtype.type(1 / (1 - p))


@drop.cpu(serves=lambda x, **_: x.dtype.kind == "f")
def _drop_cpu(x: np.ndarray, *, p: float, key: Key) -> np.ndarray:
    y = empty(x.shape, x.dtype)
    seed, stream, step = (np.uint64(v) for v in key)
    scale = x.dtype.type(1 / (1 - p))
    _drop(
        np.ascontiguousarray(x).reshape(-1), y.reshape(-1), np.float32(p), scale, seed, stream, step
    )
    return y


@numba.njit(cache=True, parallel=True)
def _drop(x, y, p, scale, seed, stream, step):
    for block in numba.prange((x.size + 3) // 4):
        words = philox(seed, stream, step, block)
        for lane in range(min(4, x.size - 4 * block)):
            i = 4 * block + lane
            u = np.float32(words[lane] >> np.uint64(8)) * np.float32(2**-24)
            y[i] = x[i] * scale if u >= p else x.dtype.type(0)


@drop.cuda(serves=same_floats)
def _drop_cuda(x: Any, *, p: float, key: Key) -> Any:
    x, y = array_module(x).ascontiguousarray(x), empty(x.shape, x.dtype, like=x)
    seed, stream, step = key
    grid, block = flat_grid(-(-x.size // 4))
    SOURCE.launch(
        *("drop", grid, block, x, y, x.size, float(p), 1 / (1 - p), seed, stream),
        *from_memory(step),
    )
    return y
