"""BatchNorm on the GPU: the launches of norm.cu. Two for the output and two for the gradient: sums
over parts of the rows, of which the last block makes all that is done channel by channel, and the
pass that writes.

Blocks count themselves in `_arrived`, one array for each GPU: BatchNorms must follow one another,
as launches on one stream do.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from .dispatch import array_module
from .launch import WARP, Source, pixel_grid, same_floats
from .memory import empty, workspace

__all__ = ["normalise", "normalise_batch", "normalise_gradient", "serves_norm"]
__all__ += ["serves_norm_batch"]

SOURCE = Source("norm.cu")
LEAST = 128  # rows that are summed as one part, at least
BLOCKS = 1024  # of a pass that sums, about, and …
PARTS = 64, 512  # … how many parts its blocks make of the rows
_arrived: dict[Any, Any] = {}
LARGE = 1 << 20  # numbers from which on a thread writes more of them


def serves_norm(x: Any, *others: Any, **_: Any) -> bool:
    """Whether these functions take a call: rows of float32 or float64, all alike."""
    alike = (o for o in others if o is not None and o.ndim == x.ndim and x.ndim > 1)
    return x.size > 0 and same_floats(x, *alike)


def serves_norm_batch(x: Any, *others: Any, **_: Any) -> bool:
    """The same, and running statistics are of that dtype."""
    return serves_norm(x, *others) and all(r is None or r.dtype == x.dtype for r in others[3:5])


def _parts(rows: int, c: int) -> tuple[int, int]:
    """How many parts the rows are summed in, and the rows of each; by the shape alone."""
    most = min(max(BLOCKS * 32 // max(c, 32), PARTS[0]), PARTS[1])
    size = max(LEAST, -(-rows // most))
    return -(-rows // size), size


def _grids(x: Any) -> tuple[int, int, int, int, int, Any, Any, Any]:
    """rows, c, parts, rows a part, each; the grids of the sums and of the pass that writes; the
    block.
    """
    c = x.shape[-1]
    rows, each = x.size // c, 16 if x.size >= LARGE else 4
    parts, size = _parts(rows, c)
    (writes, tiles), block = pixel_grid(rows, c, each)
    return rows, c, parts, size, each, (parts, tiles), (writes, tiles), block


def _counters(x: Any) -> Any:
    """Zeros (c // 32 or more,) beside x; kernels leave them so."""
    place = getattr(getattr(x, "device", None), "id", None)
    least = -(-x.shape[-1] // WARP)
    if place not in _arrived or len(_arrived[place]) < least:
        _arrived[place] = array_module(x).zeros(max(least, 1024), np.uint32)
    return _arrived[place]


def _contiguous(*arrays: Any) -> tuple[Any, ...]:
    xp = array_module(arrays[0])
    return tuple(a if a is None else xp.ascontiguousarray(a) for a in arrays)


def normalise(x: Any, scale: Any, shift: Any, residual: Any = None, *, relu: bool) -> Any:
    """x · scale + shift (+ residual), then ReLU; scale, shift (c,)."""
    x, residual = _contiguous(x, residual)
    scale, shift = (v.astype(np.float64, copy=False) for v in (scale, shift))
    y = empty(x.shape, x.dtype, like=x)
    rows, c, *_, each, _, writes, block = _grids(x)
    SOURCE.launch(
        *("normalise", writes, block, x, scale, shift, residual, y, rows, c, each, int(relu))
    )
    return y


def normalise_batch(
    x: Any,
    gamma: Any,
    beta: Any,
    residual: Any = None,
    running_mean: Any = None,
    running_var: Any = None,
    tracked: Any = None,
    *,
    eps: float,
    relu: bool,
    momentum: float | None = None,
) -> tuple[Any, Any, Any]:
    """The same by the batch's own mean and variance, which are returned too, float64 (c,); running
    statistics move, too.
    """
    x, gamma, beta, residual = _contiguous(x, gamma, beta, residual)
    rows, c, count, size, each, sums, writes, block = _grids(x)
    y, moments = empty(x.shape, x.dtype, like=x), empty((2, c), np.float64, like=x)
    mean, var = moments
    move = -1.0 if momentum is None else float(momentum)
    with workspace((count + 1, 2, c), np.float64, like=x) as scratch:
        parts, table = scratch[:count], scratch[count]
        SOURCE.launch(
            *("find_moments", sums, block, x, gamma, beta, parts, _counters(x), mean, var, table),
            *(running_mean, running_var, tracked, rows, c, size, 1 / rows, float(eps), move),
            rows / max(1, rows - 1),
        )
        SOURCE.launch(
            *("normalise", writes, block, x, table[0], table[1], residual, y, rows, c, each),
            int(relu),
        )
    if running_mean is not None and momentum is None:
        tracked += 1  # here, as all blocks read it
    return y, mean, var


def normalise_gradient(
    g: Any,
    x: Any,
    gamma: Any,
    beta: Any,
    mean: Any,
    var: Any,
    y: Any = None,
    *,
    relu: bool,
    from_batch: bool,
    eps: float = 1e-5,
) -> tuple[Any, Any, Any, Any]:
    """dx, dgamma, dbeta, and with `y` the masked g, else None."""
    g, x, gamma, beta, y = _contiguous(g, x, gamma, beta, y)
    mean, var = (v.astype(np.float64, copy=False) for v in (mean, var))
    rows, c, count, size, each, sums, writes, block = _grids(x)
    dx, lines = empty(x.shape, x.dtype, like=x), empty((2, c), x.dtype, like=x)
    dgamma, dbeta = lines
    masked, gated = None if y is None else empty(x.shape, x.dtype, like=x), int(relu and y is None)
    with workspace((2 * count + 5, c), np.float64, like=x) as scratch:
        parts, table = scratch[: 2 * count], scratch[2 * count :]
        SOURCE.launch(
            *("find_gradients", sums, block, g, x, y, masked, gamma, beta, mean, var, parts),
            *(_counters(x), dgamma, dbeta, table, rows, c, size, 1 / rows, gated),
            *(int(from_batch), float(eps)),
        )
        masked_g = g if masked is None else masked
        SOURCE.launch(
            *("normalise_gradient", writes, block, masked_g, x, table, dx, rows, c, each, gated)
        )
    return dx, dgamma, dbeta, masked
