"""BatchNorm, alone and as one unit with the convolution before and the residual after it."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ..errors import ShapeError
from ..kernels import conv_norm as kernels
from ..kernels.cases import Case, permuted_view
from ..kernels.conv import conv2d
from ..kernels.im2col import conv_shape
from ..kernels.norm import line, normalise, normalise_batch, normalise_gradient
from ..op import op
from .conv import check_conv, check_dtypes, check_residual, check_vector

__all__ = ["batch_norm", "conv_norm", "fold"]


def _check(
    name: str,
    x: Any,
    shape: tuple[int, ...],
    gamma: Any,
    beta: Any,
    running: Any,
    training: bool,
) -> tuple[Any, ...]:
    """gamma, beta, and the running mean and variance, float64 (c,), or None in training, for an
    array of this shape that is of the kind of x.
    """
    xp = check_dtypes(name, x, gamma=gamma, beta=beta)
    c, size = shape[-1], math.prod(shape)
    if len(shape) < 2 or size == 0:
        raise ShapeError(f"{name}: x must be (n, …, c) with at least one row, got {shape}")
    check_vector(name, "gamma", gamma, c)
    check_vector(name, "beta", beta, c)
    gamma = xp.ones(c, x.dtype) if gamma is None else gamma
    beta = xp.zeros(c, x.dtype) if beta is None else beta
    if training:
        if size == c:
            raise ShapeError(f"{name}: training needs more than one value a channel, got x={shape}")
        return gamma, beta, None
    if not isinstance(running, tuple | list) or len(running) != 2:
        raise ShapeError(f"{name}: running=(mean, var) is needed when training=False")
    mean, var = (xp.asarray(v) for v in running)
    check_vector(name, "running mean", mean, c)
    check_vector(name, "running variance", var, c)
    return gamma, beta, (mean.astype("float64"), var.astype("float64"))


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
def batch_norm(x, gamma=None, beta=None, *, running=None, training=False, eps=1e-5, moving=None):
    """(x - mean) / sqrt(var + eps) · gamma + beta for each channel, the last axis of x (n, …, c).

    In training, mean and var are the batch's; the output's `aux` is (mean, biased var), float64,
    for whoever keeps running statistics. Else they are `running`, bare arrays (mean, var), which
    are never written. moving: running statistics that the kernel is to write itself, bare arrays
    (mean, var, count) and the momentum.

    Source: Ioffe and Szegedy 2015, arXiv:1502.03167.
    """
    gamma, beta, running = _check("batch_norm", x, x.shape, gamma, beta, running, training)
    known = {"relu": False, "from_batch": running is None, "eps": eps}
    if running is None:
        *kept, momentum = moving or (None,)
        y, mean, var = normalise_batch(
            x, gamma, beta, None, *kept, eps=eps, relu=False, momentum=momentum
        )
    else:
        mean, var = running
        y = normalise(x, *line(gamma, beta, mean, var, eps), relu=False)

    def backward(g, needs):
        return normalise_gradient(g, x, gamma, beta, mean, var, **known)[: len(needs)]

    return (y, (mean, var) if running is None else None), backward


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
    moving=None,
):
    """Convolution, BatchNorm, then + residual, then ReLU: the unit that residual networks are made
    of.

    x (n, h, w, c), w (r, s, c // groups, k), gamma and beta (k,), residual (n, p, q, k) -> (n, p,
    q, k). One operation, so that kernels may fuse what belongs together. `aux`, `running` and
    `moving` are those of `batch_norm`.
    """
    params = check_conv("conv_norm", x, w, stride, padding, dilation, groups)
    shape = conv_shape(x, w, params["stride"], params["padding"], params["dilation"])
    gamma, beta, running = _check("conv_norm", x, shape, gamma, beta, running, training)
    check_residual("conv_norm", x, residual, shape)
    known = {"relu": relu, "from_batch": running is None, "eps": eps}
    if running is None:
        *kept, momentum = moving or (None,)
        z, y, mean, var = kernels.conv_norm(
            x, w, gamma, beta, residual, *kept, relu=relu, eps=eps, momentum=momentum, **params
        )
    else:
        z, (mean, var) = conv2d(x, w, **params), running
        y = normalise(z, *line(gamma, beta, mean, var, eps), residual, relu=relu)
    signs = y if relu and residual is not None else None

    def backward(g, needs, take):
        total = take(0) if needs[0] else None
        *grads, masked = kernels.conv_norm_gradient(
            *(g, z, x, w, gamma, beta, mean, var, signs, total),
            wants=needs[:2],
            **known,
            **params,
        )
        return (*grads, g if masked is None else masked)[: len(needs)]

    return (y, (mean, var) if running is None else None), backward


def fold(
    w: Any, b: Any, gamma: Any, beta: Any, *, running: tuple[Any, Any], eps: float
) -> tuple[Any, Any]:
    """Weights and bias of the convolution that does a BatchNorm's work too: bare arrays (r, s, c,
    k) and (k,), computed in float64 and rounded once to w's dtype.

    b (k,), gamma and beta may be None; running and eps are those of `batch_norm`.
    """
    check_dtypes("conv_norm", w, bias=b)
    gamma, beta, (mean, var) = _check("conv_norm", w, w.shape, gamma, beta, running, False)
    scale, shift = line(gamma, beta, mean if b is None else mean - b, var, eps)
    return (w * scale).astype(w.dtype), shift.astype(w.dtype)
