"""Softmax and the cross-entropy that training minimises."""

from __future__ import annotations

from typing import Any

from ..backend import device_of, is_array
from ..errors import DTypeError, ShapeError
from ..kernels.cases import Case, labels, positive, probabilities
from ..kernels.loss import log_softmax as log_softmax_of
from ..kernels.loss import softmax_loss, softmax_loss_gradient
from ..op import op
from .conv import check_dtypes, check_vector
from .elementwise import need_float

__all__ = ["cross_entropy", "log_softmax", "mse_loss", "softmax"]


def _check_axis(name: str, x: Any, axis: int) -> Any:
    xp = need_float(name, x)
    if not -x.ndim <= axis < x.ndim or x.size == 0:
        raise ShapeError(f"{name}: axis {axis} does not fit x of shape {x.shape}")
    return xp


@op(Case((3, 4)), Case((2, 3, 4), axis=1))
def softmax(x, *, axis=-1):
    """e^x / Σ e^x along `axis`."""
    y = _check_axis("softmax", x, axis).exp(log_softmax_of(x, axis))
    return y, lambda g: (y * (g - (g * y).sum(axis=axis, keepdims=True)),)


@op(Case((3, 4)), Case((2, 3, 4), axis=1))
def log_softmax(x, *, axis=-1):
    """x - log Σ e^x along `axis`."""
    xp = _check_axis("log_softmax", x, axis)
    y = log_softmax_of(x, axis)
    return y, lambda g: (g - xp.exp(y) * g.sum(axis=axis, keepdims=True),)


def _check_target(logits: Any, target: Any) -> None:
    """Class indices (n,) or probabilities (n, k)."""
    n, k = logits.shape
    if not is_array(target):
        raise DTypeError(f"cross_entropy: target must be an array, got {type(target).__name__}")
    if target.dtype.kind == "f":
        if target.shape != (n, k):
            raise ShapeError(
                f"cross_entropy: target probabilities are {target.shape} but the logits ({n}, {k})"
            )
        return
    if target.dtype.kind not in "iu":
        raise DTypeError(
            f"cross_entropy: target must be integer labels or floats, got {target.dtype}"
        )
    if target.shape != (n,):
        raise ShapeError(
            f"cross_entropy: labels must be ({n},) for logits ({n}, {k}), got {target.shape}"
        )
    if device_of(target) != "cpu":  # seeing them would wait for the GPU: a wrong one gives NaN
        return
    outside = (target < 0) | (target >= k)
    if outside.any():
        at = int(outside.argmax())
        raise ValueError(f"cross_entropy: label {int(target[at])} at {at} is not in 0 … {k - 1}")


@op(
    Case((4, 3), labels(4, 3)),
    Case((4, 3), labels(4, 3), label_smoothing=0.1, reduction="sum"),
    Case((4, 3), probabilities(4, 3), wrt=[0, 1]),
    Case((4, 3), labels(4, 3), positive(3), wrt=[0], reduction="none"),
    Case((4, 3), probabilities(4, 3), positive(3), wrt=[0, 1], label_smoothing=0.2),
    Case((4, 3), labels(4, 3), positive(3), wrt=[0], label_smoothing=0.2),
)
def cross_entropy(logits, target, weight=None, *, label_smoothing=0.0, reduction="mean"):
    """-Σ target · log softmax(logits), averaged over the batch.

    logits (n, k); target: integer labels (n,) or probabilities (n, k); weight (k,) scales each
    class, and with labels the mean is over the weights of the labels, as in PyTorch.
    label_smoothing: the share of the target spread evenly over all classes (Szegedy et al. 2016,
    arXiv:1512.00567). reduction: "mean", "sum" or "none" -> (n,).

    Raises ShapeError, DTypeError, or ValueError for a label out of range; on the GPU, where that
    would have to wait, the loss is NaN.
    """
    need_float("cross_entropy", logits)
    if logits.ndim != 2 or 0 in logits.shape:
        raise ShapeError(f"cross_entropy: logits must be (n, k) and not empty, got {logits.shape}")
    if reduction not in ("mean", "sum", "none"):
        raise ValueError(f"cross_entropy: reduction is {reduction!r} but must be mean, sum or none")
    if not 0 <= label_smoothing < 1:
        raise ValueError(
            f"cross_entropy: label_smoothing is {label_smoothing} but must be in [0, 1)"
        )
    n, k = logits.shape
    check_vector("cross_entropy", "weight", weight, k)
    _check_target(logits, target)
    if target.dtype.kind == "f":
        target = target.astype(logits.dtype, copy=False)
    weight = None if weight is None else weight.astype(logits.dtype, copy=False)
    losses, log_p = softmax_loss(logits, target, weight, smoothing=label_smoothing)
    if reduction != "mean":
        divisor = 1
    elif weight is None or target.dtype.kind == "f":
        divisor = n
    else:
        divisor = weight[target].sum()

    def backward(g, needs):
        g = g / divisor
        dlogits = dtarget = None
        if needs[0]:
            dlogits = softmax_loss_gradient(log_p, g, target, weight, smoothing=label_smoothing)
        if needs[1]:
            g = g[:, None] if reduction == "none" else g
            dtarget = -g * (1 - label_smoothing) * log_p * (1 if weight is None else weight)
        return (dlogits, dtarget, None)[: len(needs)]

    return losses if reduction == "none" else losses.sum() / divisor, backward


@op(Case((3, 4), (3, 4)))
def mse_loss(x, target):
    """The mean of (x - target)²."""
    check_dtypes("mse_loss", x, target=target)
    if x.shape != target.shape or x.size == 0:
        raise ShapeError(f"mse_loss: x is {x.shape} but target {target.shape}")
    difference = x - target

    def backward(g, needs):
        dx = difference * (2 * g / x.size)
        return dx, -dx

    return (difference * difference).mean(), backward
