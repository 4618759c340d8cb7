"""BatchNorm, with the residual and the ReLU after it: two passes over memory, and two for the
gradient.

Every kernel sees x as rows of c channels. Memory is what they wait for, so they read little: where
a ReLU followed, the gradient finds its sign from x again instead of reading the output; after a
residual its first pass writes the masked gradient, which the residual needs anyway and the second
pass reads. All that is done channel by channel in between is compiled too. `norm_loops` has the
compiled loops, `norm_cuda` the GPU's launches; here are the references and the functions that take
arrays.

The batch's statistics need a pass of their own only where the convolution before has not gathered
them (`conv_norm`).

Source: Ioffe and Szegedy 2015, arXiv:1502.03167.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numba
import numpy as np

from . import norm_cuda
from . import norm_loops as loops
from .cases import Case, permuted_view, positive
from .dispatch import array_module, kernel
from .memory import address, empty, threads
from .simd import STREAM

__all__ = ["fills_vectors", "join_rows", "line", "normalise", "normalise_batch"]
__all__ += ["normalise_batch_cpu", "normalise_gradient", "running", "streams"]

WIDE = 256  # numbers that a joined row may have: few rows, and sums that stay in the cache


@kernel(
    Case((2, 4, 8, 3), (3,), (3,), None, relu=False),
    Case((2, 4, 4, 4), (4,), (4,), (2, 4, 4, 4), relu=True),
    Case((704, 2), (2,), (2,), None, relu=True),
    Case((8, 16), (16,), (16,), None, relu=True),
    Case(permuted_view(3, 4, 32), (32,), (32,), permuted_view(3, 4, 32), relu=False),
)
def normalise(x: Any, scale: Any, shift: Any, residual: Any = None, *, relu: bool) -> Any:
    """x · scale + shift (+ residual), then max(·, 0) with `relu`. scale, shift (c,); residual like
    x.
    """
    y = x * scale.astype(x.dtype) + shift.astype(x.dtype)
    if residual is not None:
        y += residual
    return array_module(x).maximum(y, 0) if relu else y


def _move_statistics(
    running_mean: Any,
    running_var: Any,
    tracked: Any,
    mean: Any,
    var: Any,
    rows: int,
    momentum: float | None,
) -> None:
    """Move running statistics (c,) towards a batch's mean and biased variance, of so many rows."""
    tracked += 1
    m = 1 / int(tracked) if momentum is None else momentum
    if isinstance(mean, np.ndarray) and running_mean.dtype == running_var.dtype == np.float32:
        loops.move_statistics(running_mean, running_var, mean, var, float(m), rows)
        return
    running_mean[...] = (1 - m) * running_mean + m * mean
    running_var[...] = (1 - m) * running_var + m * rows / (rows - 1) * var


def running(c: int) -> tuple[Any, ...]:
    """Running statistics after three batches, for sample calls."""
    three = lambda rng, dtype: np.array(3)  # noqa: E731
    three.__name__ = "three"
    return (c,), positive(c), three


@kernel(
    Case((2, 4, 8, 3), (3,), (3,), None, eps=1e-5, relu=True),
    Case((2, 4, 4, 4), (4,), (4,), (2, 4, 4, 4), eps=1e-3, relu=True),
    Case((704, 2), (2,), (2,), None, eps=1e-5, relu=False),
    Case((8, 16), (16,), (16,), None, eps=1e-5, relu=True),
    Case(permuted_view(3, 4, 32), (32,), (32,), permuted_view(3, 4, 32), eps=1e-5, relu=False),
    Case((2, 3, 5, 40), (40,), (40,), None, *running(40), eps=1e-5, relu=True, momentum=0.1),
    Case((2, 3, 5, 8), (8,), (8,), None, *running(8), eps=1e-5, relu=False),
)
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
    """`normalise` by the batch's own statistics: the output, the mean and the biased variance over
    all axes but the last, these float64 (c,).

    Running statistics (c,) are moved towards the mean and the unbiased variance by `momentum`, or
    are the average of all batches without one; tracked, int64 (): how many there were, and then
    one more.
    """
    rows = x.reshape(-1, x.shape[-1]).astype(np.float64)
    mean, var = rows.mean(axis=0), rows.var(axis=0)
    if running_mean is not None:
        _move_statistics(running_mean, running_var, tracked, mean, var, len(rows), momentum)
    return (
        normalise.reference(x, *line(gamma, beta, mean, var, eps), residual, relu=relu),
        mean,
        var,
    )


def line(gamma: Any, beta: Any, mean: Any, var: Any, eps: float) -> tuple[Any, Any]:
    """scale and shift: (x - mean) / sqrt(var + eps) · gamma + beta = x · scale + shift."""
    scale = gamma.astype(np.float64) * (1 / array_module(var).sqrt(var + eps))
    return scale, beta.astype(np.float64) - mean * scale


@kernel(
    Case(*[(2, 4, 8, 3)] * 2, (3,), (3,), (3,), positive(3), relu=True, from_batch=True),
    Case(*[(704, 2)] * 2, (2,), (2,), (2,), positive(2), (704, 2), relu=True, from_batch=True),
    Case(*[(8, 16)] * 2, (16,), (16,), (16,), positive(16), relu=True, from_batch=False),
    Case(*[(8, 16)] * 2, (16,), (16,), (16,), positive(16), relu=False, from_batch=True),
    Case(
        *[permuted_view(3, 4, 32)] * 2,
        *[(32,)] * 3,
        positive(32),
        permuted_view(3, 4, 32),
        relu=True,
        from_batch=False,
    ),
)
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
    """dx, dgamma, dbeta, and, where `y` is given, g as it came out of the ReLU, else None.

    mean, var (c,): the batch's when `from_batch`, else constants; y: the output, where a residual
    was added before the ReLU. With x̂ = (x - mean) / std,
        dx = gamma / std · (g - mean(g) - x̂ · mean(g · x̂))
    and without the two means where the statistics are constants.
    """
    axes, rows = tuple(range(x.ndim - 1)), x.size // x.shape[-1]
    masked = None if y is None else g * (y > 0)
    if masked is not None:
        g = masked
    elif relu:
        scale, shift = line(gamma, beta, mean, var, eps)
        g = g * (x * scale.astype(x.dtype) + shift.astype(x.dtype) > 0)
    wide, inverse_std = g.astype(np.float64), 1 / array_module(var).sqrt(var + eps)
    dbeta = wide.sum(axis=axes)
    dgamma = (wide * (x.astype(np.float64) - mean)).sum(axis=axes) * inverse_std
    a = gamma * inverse_std
    b = -a * dgamma * inverse_std / rows if from_batch else 0 * a
    d = -a * dbeta / rows - b * mean if from_batch else 0 * a
    a, b, d, dgamma, dbeta = (v.astype(x.dtype) for v in (a, b, d, dgamma, dbeta))
    return a * g + b * x + d, dgamma, dbeta, masked


@lru_cache(maxsize=1024)
def join_rows(rows: int, c: int) -> tuple[int, int]:
    """Rows of c channels joined: how many joined rows, and their numbers. A power of two of rows
    make one; more than WIDE allows, if only then they are whole vectors.
    """
    join = 1
    while rows % (2 * join) == 0 and (2 * join * c <= WIDE or join * c % loops.WIDTH):
        join *= 2
    return rows // join, join * c


def fills_vectors(x: Any, *others: Any, **_: Any) -> bool:
    """Whether the twins take these: float32, and joined rows that are whole vectors."""
    if x.dtype != np.float32 or x.size == 0 or numba.config.DISABLE_JIT:  # type: ignore[attr-defined]
        return False
    for other in others:
        if other is not None and other.ndim == x.ndim and other.dtype != x.dtype:
            return False
    return join_rows(x.size // x.shape[-1], x.shape[-1])[1] % loops.WIDTH == 0


def streams(x: np.ndarray, *places: int) -> bool:
    """Whether outputs like x at these addresses go past the caches."""
    return x.nbytes >= STREAM and all(place % 64 == 0 for place in places)


@normalise.cpu(serves=fills_vectors)
def _normalise_cpu(x, scale, shift, residual=None, *, relu):
    x, y = np.ascontiguousarray(x), empty(x.shape, x.dtype)
    count, width = join_rows(x.size // x.shape[-1], x.shape[-1])
    table = np.empty((3, width), x.dtype)
    table.reshape(3, -1, x.shape[-1])[:2] = np.stack((scale, shift))[:, None]
    table[loops.FLOOR] = 0 if relu else -np.inf
    residual = None if residual is None else np.ascontiguousarray(residual)
    added, to = 0 if residual is None else address(residual), address(y)
    loops.normalise(address(x), count, table, added, to, streams(x, to), threads())
    return y


UNKNOWN = np.empty((0, 3, 0), np.float32), 0  # the convolution gathered nothing


@normalise_batch.cpu(serves=fills_vectors)
def normalise_batch_cpu(
    x,
    gamma,
    beta,
    residual=None,
    running_mean=None,
    running_var=None,
    tracked=None,
    *,
    eps,
    relu,
    momentum=None,
    gathered: Any = UNKNOWN,
):
    """gathered: sums of x that its convolution has gathered, and of how many rows each
    (`winograd.convolve_and_sum`).
    """
    x, y, moments = np.ascontiguousarray(x), empty(x.shape, x.dtype), np.empty((2, x.shape[-1]))
    residual = None if residual is None else np.ascontiguousarray(residual)
    added, to = 0 if residual is None else address(residual), address(y)
    rows, (sums, each) = x.size // x.shape[-1], gathered
    loops.normalise_batch(
        *(address(x), *join_rows(rows, x.shape[-1]), sums, each, gamma, beta, float(eps)),
        *(bool(relu), moments, added, to, streams(x, to), threads()),
    )
    mean, var = moments
    if running_mean is not None:
        _move_statistics(running_mean, running_var, tracked, mean, var, rows, momentum)
    return y, mean, var


@normalise_gradient.cpu(serves=fills_vectors)
def _normalise_gradient_cpu(g, x, gamma, beta, mean, var, y=None, *, relu, from_batch, eps=1e-5):
    mean, var = np.asarray(mean, np.float64), np.asarray(var, np.float64)
    g, x = np.ascontiguousarray(g), np.ascontiguousarray(x)
    dx, masked, signs, written = empty(x.shape, x.dtype), None, 0, 0
    if y is not None:
        y, masked = np.ascontiguousarray(y), empty(x.shape, x.dtype)
        signs, written = address(y), address(masked)
    to, sums, gated = address(dx), np.empty((2, x.shape[-1]), x.dtype), relu and y is None
    loops.normalise_gradient(
        *(address(g), address(x), *join_rows(x.size // x.shape[-1], x.shape[-1])),
        *(gamma, beta, mean, var, float(eps), gated, bool(from_batch), signs, written),
        *(sums, to, streams(x, to, written), threads()),
    )
    dbeta, dgamma = sums
    return dx, dgamma, dbeta, masked


normalise.cuda(serves=norm_cuda.serves_norm)(norm_cuda.normalise)
normalise_batch.cuda(serves=norm_cuda.serves_norm_batch)(norm_cuda.normalise_batch)
normalise_gradient.cuda(serves=norm_cuda.serves_norm)(norm_cuda.normalise_gradient)
