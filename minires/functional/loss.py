"""Softmax and the cross-entropy that training minimises."""

from __future__ import annotations

from typing import Any

from ..backend import array_module, device_of, is_array
from ..errors import DTypeError, ShapeError
from ..kernels.cases import Case, labels, positive, probabilities
from ..op import op
from .conv import check_dtypes, check_vector
from .elementwise import need_float

__all__ = ["cross_entropy", "log_softmax", "mse_loss", "softmax"]


def _log_softmax(x: Any, axis: int) -> Any:
    """x - log Σ e^x, shifted by the maximum so that nothing overflows."""
    xp = array_module(x)
    x = x - x.max(axis=axis, keepdims=True)
    return x - xp.log(xp.exp(x).sum(axis=axis, keepdims=True))


def _check_axis(name: str, x: Any, axis: int) -> Any:
    xp = need_float(name, x)
    if not -x.ndim <= axis < x.ndim or x.size == 0:
        raise ShapeError(f"{name}: axis {axis} does not fit x of shape {x.shape}")
    return xp


@op(Case((3, 4)), Case((2, 3, 4), axis=1))
def softmax(x, *, axis=-1):
    """e^x / Σ e^x along `axis`."""
    y = _check_axis("softmax", x, axis).exp(_log_softmax(x, axis))
    return y, lambda g: (y * (g - (g * y).sum(axis=axis, keepdims=True)),)


@op(Case((3, 4)), Case((2, 3, 4), axis=1))
def log_softmax(x, *, axis=-1):
    """x - log Σ e^x along `axis`."""
    xp = _check_axis("log_softmax", x, axis)
    y = _log_softmax(x, axis)
    return y, lambda g: (g - xp.exp(y) * g.sum(axis=axis, keepdims=True),)


def _target_distribution(logits: Any, target: Any) -> Any:
    """Class indices (n,) or probabilities (n, k) as probabilities (n, k)."""
    xp = array_module(logits)
    n, k = logits.shape
    if not is_array(target):
        raise DTypeError(f"cross_entropy: target must be an array, got {type(target).__name__}")
    if target.dtype.kind == "f":
        if target.shape != (n, k):
            raise ShapeError(
                f"cross_entropy: target probabilities are {target.shape} but the logits ({n}, {k})"
            )
        return target.astype(logits.dtype)
    if target.dtype.kind not in "iu":
        raise DTypeError(
            f"cross_entropy: target must be integer labels or floats, got {target.dtype}"
        )
    if target.shape != (n,):
        raise ShapeError(
            f"cross_entropy: labels must be ({n},) for logits ({n}, {k}), got {target.shape}"
        )
    outside = (target < 0) | (target >= k)
    if device_of(target) != "cpu":  # seeing them would wait for the GPU: a wrong one gives NaN
        given = (target[:, None] == xp.arange(k)).astype(logits.dtype)
        return xp.where(outside[:, None], logits.dtype.type(xp.nan), given)
    if outside.any():
        at = int(outside.argmax())
        raise ValueError(f"cross_entropy: label {int(target[at])} at {at} is not in 0 … {k - 1}")
    return (target[:, None] == xp.arange(k)).astype(logits.dtype)


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
    xp = need_float("cross_entropy", logits)
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
    given = _target_distribution(logits, target)
    wanted = (1 - label_smoothing) * given + label_smoothing / k
    weighted = wanted if weight is None else wanted * weight.astype(logits.dtype)
    log_p = _log_softmax(logits, axis=1)
    losses = -(weighted * log_p).sum(axis=1)
    if reduction != "mean":
        divisor = 1
    elif weight is None or target.dtype.kind == "f":
        divisor = n
    else:
        divisor = (given @ weight.astype(logits.dtype)).sum()

    def backward(g, needs):
        g = (g[:, None] if reduction == "none" else g) / divisor
        dlogits = dtarget = None
        if needs[0]:
            dlogits = g * (weighted.sum(axis=1, keepdims=True) * xp.exp(log_p) - weighted)
        if needs[1]:
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
