"""BatchNorm, alone and as one unit with the convolution before and the residual after it."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from ..errors import ShapeError
from ..kernels import conv as conv_kernels
from ..kernels.cases import Case, permuted_view
from ..kernels.norm import channel_moments, gradient_sums, normalise, normalise_gradient
from ..op import op
from .conv import check_conv, check_dtypes, check_residual, check_vector, conv_gradients

__all__ = ["batch_norm", "conv_norm", "fold"]


class _Statistics(NamedTuple):
    """What normalises: per-channel float64 arrays (c,)."""

    mean: Any
    var: Any
    inverse_std: Any
    gamma: Any
    beta: Any
    from_batch: bool


def _statistics(
    name: str, x: Any, gamma: Any, beta: Any, running: Any, training: bool, eps: float
) -> _Statistics:
    """The batch's statistics in training, else the running ones."""
    xp = check_dtypes(name, x, gamma=gamma, beta=beta)
    c = x.shape[-1]
    if x.ndim < 2 or x.size == 0:
        raise ShapeError(f"{name}: x must be (n, …, c) with at least one row, got {x.shape}")
    check_vector(name, "gamma", gamma, c)
    check_vector(name, "beta", beta, c)
    if training:
        if x.size == c:
            raise ShapeError(
                f"{name}: training needs more than one value a channel, got x={x.shape}"
            )
        mean, var = channel_moments(x)
    elif not isinstance(running, tuple | list) or len(running) != 2:
        raise ShapeError(f"{name}: running=(mean, var) is needed when training=False")
    else:
        mean, var = (xp.asarray(v) for v in running)
        check_vector(name, "running mean", mean, c)
        check_vector(name, "running variance", var, c)
        mean, var = mean.astype("float64"), var.astype("float64")
    ones = xp.ones(c) if gamma is None else gamma.astype("float64")
    shift = xp.zeros(c) if beta is None else beta.astype("float64")
    return _Statistics(mean, var, 1 / xp.sqrt(var + eps), ones, shift, training)


def _apply(x: Any, stats: _Statistics, residual: Any, relu: bool) -> Any:
    scale = stats.gamma * stats.inverse_std
    return normalise(x, scale, stats.beta - stats.mean * scale, residual, relu=relu)


def _gradients(g: Any, x: Any, y: Any, stats: _Statistics, want_masked: bool) -> tuple[Any, ...]:
    """(dx, dgamma, dbeta, masked g). y is the output when a ReLU followed, else None.

    With x̂ = (x - mean) / std, in training:
        dx = gamma / std · (g - mean(g) - x̂ · mean(g · x̂))
    and without the two means where the statistics are constants.
    """
    sum_g, sum_gx = gradient_sums(g, x, stats.mean, y)
    dgamma = sum_gx * stats.inverse_std
    a = stats.gamma * stats.inverse_std
    if stats.from_batch:
        rows = x.size // x.shape[-1]
        b = -a * dgamma * stats.inverse_std / rows
        d = -a * sum_g / rows - b * stats.mean
    else:
        b = d = 0 * a
    dx, masked = normalise_gradient(g, x, a, b, d, y, want_masked=want_masked)
    return dx, dgamma.astype(x.dtype), sum_g.astype(x.dtype), masked


def _running(c: int) -> tuple[Any, Any]:
    """Plausible running statistics for the sample calls."""
    return np.linspace(-0.3, 0.4, c), np.linspace(0.5, 1.5, c)


@op(
    Case((3, 2, 4, 3), (3,), (3,), training=True),
    Case((6, 2), (2,), (2,), training=True, eps=1e-2),
    Case((3, 2, 2, 3), training=True),
    Case(permuted_view(3, 4, 5, 2), (2,), (2,), training=True),
    Case((3, 2, 4, 3), (3,), (3,), training=False, running=_running(3)),
)
def batch_norm(x, gamma=None, beta=None, *, running=None, training=False, eps=1e-5):
    """(x - mean) / sqrt(var + eps) · gamma + beta for each channel, the last axis of x (n, …, c).

    In training, mean and var are the batch's; the output's `aux` is (mean, biased var), float64,
    for whoever keeps running statistics. Else they are `running`, bare arrays (mean, var), which
    are never written.

    Source: Ioffe and Szegedy 2015, arXiv:1502.03167.
    """
    stats = _statistics("batch_norm", x, gamma, beta, running, training, eps)
    y = _apply(x, stats, None, relu=False)

    def backward(g, needs):
        dx, dgamma, dbeta, _ = _gradients(g, x, None, stats, want_masked=False)
        return (dx, dgamma, dbeta)[: len(needs)]

    return (y, (stats.mean, stats.var) if training else None), backward


@op(
    Case((2, 4, 4, 3), (3, 3, 3, 2), (2,), (2,), training=True, padding=1),
    Case(
        (2, 4, 4, 3),
        (3, 3, 3, 2),
        (2,),
        (2,),
        (2, 2, 2, 2),
        training=True,
        relu=True,
        stride=2,
        padding=1,
    ),
    Case((2, 4, 4, 2), (1, 1, 2, 3), (3,), (3,), (2, 4, 4, 3), training=True),
    Case((2, 4, 4, 4), (3, 3, 2, 6), (6,), (6,), training=True, relu=True, groups=2),
    Case(
        (2, 4, 4, 3),
        (3, 3, 3, 2),
        (2,),
        (2,),
        (2, 2, 2, 2),
        training=False,
        relu=True,
        running=_running(2),
    ),
)
def conv_norm(
    x,
    w,
    gamma,
    beta,
    residual=None,
    *,
    running=None,
    relu=False,
    training=False,
    stride=1,
    padding=0,
    dilation=1,
    groups=1,
    eps=1e-5,
):
    """Convolution, BatchNorm, then + residual, then ReLU: the unit that residual networks are made
    of.

    x (n, h, w, c), w (r, s, c // groups, k), gamma and beta (k,), residual (n, p, q, k) -> (n, p,
    q, k). One operation, so that kernels may fuse what belongs together. `aux` and `running` are
    those of `batch_norm`.
    """
    params = check_conv("conv_norm", x, w, stride, padding, dilation, groups)
    z = conv_kernels.conv2d(x, w, **params)
    stats = _statistics("conv_norm", z, gamma, beta, running, training, eps)
    check_residual("conv_norm", x, residual, z.shape)
    y = _apply(z, stats, residual, relu)

    def backward(g, needs):
        kept = y if relu else None
        dz, dgamma, dbeta, masked = _gradients(
            g, z, kept, stats, want_masked=needs[4:] == (True,) and relu
        )
        dx, dw = conv_gradients(dz, x, w, params, needs)
        return (dx, dw, dgamma, dbeta, masked if relu else g)[: len(needs)]

    return (y, (stats.mean, stats.var) if training else None), backward


def fold(
    w: Any, b: Any, gamma: Any, beta: Any, *, running: tuple[Any, Any], eps: float
) -> tuple[Any, Any]:
    """Weights and bias of the convolution that does a BatchNorm's work too: bare arrays (r, s, c,
    k) and (k,), computed in float64 and rounded once to w's dtype.

    b (k,), gamma and beta may be None; running and eps are those of `batch_norm`.
    """
    check_dtypes("conv_norm", w, bias=b)
    stats = _statistics("conv_norm", w, gamma, beta, running, False, eps)
    scale = stats.gamma * stats.inverse_std
    mean = stats.mean if b is None else stats.mean - b
    return (w * scale).astype(w.dtype), (stats.beta - mean * scale).astype(w.dtype)
