"""Softmax cross-entropy and its gradient.

    losses = -Σ_j t_j log p_j          with p = softmax(logits)
    dlogits = g (p Σ_j t_j - t)        with t the target, smoothed and weighted

On the CPU this is array code: of a training step it takes next to nothing.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from .cases import Case, labels, positive, probabilities
from .dispatch import array_module, kernel
from .launch import MOST_ROWS, Source, same_floats
from .memory import empty

__all__ = ["log_softmax", "right_answers", "smooth_target", "softmax_loss", "softmax_loss_gradient"]

SOURCE = Source("loss.cu")
BLOCK = 32, 8  # lanes, and rows


def log_softmax(x: Any, axis: int) -> Any:
    """x - log Σ e^x, shifted by the maximum so that nothing overflows."""
    xp = array_module(x)
    x = x - x.max(axis=axis, keepdims=True)
    return x - xp.log(xp.exp(x).sum(axis=axis, keepdims=True))


def smooth_target(target: Any, weight: Any, k: int, dtype: Any, smoothing: float) -> Any:
    """Labels (n,) or probabilities (n, k) as t (n, k): (1 - smoothing) of them and the rest spread
    evenly, times the weight (k,) of each class. A label that is not 0 … k - 1 makes its row NaN.
    """
    if target.ndim == 1:
        xp, rows = array_module(target), target[:, None]
        target = xp.where((rows < 0) | (rows >= k), np.nan, rows == xp.arange(k))
    wanted = (1 - smoothing) * target.astype(dtype) + smoothing / k
    return wanted if weight is None else wanted * weight.astype(dtype)


@kernel(
    Case((4, 3), labels(4, 3), smoothing=0.0),
    Case((5, 70), labels(5, 70), smoothing=0.1),
    Case((9, 33), probabilities(9, 33), smoothing=0.0),
    Case((3, 10), labels(3, 10), positive(10), smoothing=0.2),
    Case((3, 1), probabilities(3, 1), positive(1), smoothing=0.2),
)
def softmax_loss(
    logits: Any, target: Any, weight: Any = None, *, smoothing: float
) -> tuple[Any, Any]:
    """logits (n, k), target labels (n,) or probabilities (n, k) -> losses (n,) and log p (n, k).

    The row of a label that is not 0 … k - 1 is NaN: on the GPU, an error would have to wait.
    """
    wanted = smooth_target(target, weight, logits.shape[1], logits.dtype, smoothing)
    log_p = log_softmax(logits, axis=1)
    return -(wanted * log_p).sum(axis=1), log_p


def _log_p(n: int, k: int) -> Any:
    """A case input: log-probabilities."""
    make = lambda rng, dtype: log_softmax(rng.standard_normal((n, k)), 1).astype(dtype)  # noqa: E731
    make.__name__ = f"log_p({n},{k})"
    return make


@kernel(
    Case(_log_p(4, 3), (4,), labels(4, 3), smoothing=0.0),
    Case(_log_p(5, 70), (), labels(5, 70), smoothing=0.1),
    Case(_log_p(9, 33), (9,), probabilities(9, 33), smoothing=0.0),
    Case(_log_p(3, 10), (3,), labels(3, 10), positive(10), smoothing=0.2),
    Case(_log_p(3, 1), (3,), probabilities(3, 1), positive(1), smoothing=0.2),
)
def softmax_loss_gradient(
    log_p: Any, g: Any, target: Any, weight: Any = None, *, smoothing: float
) -> Any:
    """The gradient of the logits (n, k) from log p (n, k) and that of the losses, g (n,) or ()."""
    wanted = smooth_target(target, weight, log_p.shape[1], log_p.dtype, smoothing)
    g = g[:, None] if g.ndim else g
    return g * (wanted.sum(axis=1, keepdims=True) * array_module(log_p).exp(log_p) - wanted)


def _serves(x: Any, *others: Any, **_: Any) -> bool:
    floats = (o for o in others if o is not None and o.dtype.kind == "f")
    return same_floats(x, *floats) and x.size <= MOST_ROWS and x.shape[1] > 0


def _arguments(target: Any, weight: Any) -> tuple[Any, Any, Any]:
    """Labels int64 (n,) or None, probabilities (n, k) or None, and the weight, as loss.cu has
    them."""
    xp = array_module(target)
    weight = None if weight is None else xp.ascontiguousarray(weight)
    if target.ndim == 1:
        return xp.ascontiguousarray(target.astype(np.int64, copy=False)), None, weight
    return None, xp.ascontiguousarray(target), weight


@softmax_loss.cuda(serves=_serves)
def _softmax_loss_cuda(
    logits: Any, target: Any, weight: Any = None, *, smoothing: float
) -> tuple[Any, Any]:
    n, k = logits.shape
    logits = array_module(logits).ascontiguousarray(logits)
    losses, log_p = empty((n,), logits.dtype, like=logits), empty((n, k), logits.dtype, like=logits)
    grid = (-(-n // BLOCK[1]),)
    given = _arguments(target, weight)
    SOURCE.launch(
        *("softmax_loss", grid, BLOCK, logits, *given, losses, log_p, n, k, float(smoothing))
    )
    return losses, log_p


@softmax_loss_gradient.cuda(serves=_serves)
def _softmax_loss_gradient_cuda(
    log_p: Any, g: Any, target: Any, weight: Any = None, *, smoothing: float
) -> Any:
    n, k = log_p.shape
    xp, dlogits = array_module(log_p), empty((n, k), log_p.dtype, like=log_p)
    log_p, each = xp.ascontiguousarray(log_p), int(g.ndim > 0)
    grid, given = (-(-n // BLOCK[1]),), _arguments(target, weight)
    SOURCE.launch(
        *("softmax_loss_gradient", grid, BLOCK, log_p, xp.ascontiguousarray(g), *given, dlogits),
        *(n, k, each, float(smoothing)),
    )
    return dlogits


@kernel(Case((5, 3), labels(5, 3)), Case((9, 33), labels(9, 33)), Case((3, 1), labels(3, 1)))
def right_answers(logits: Any, target: Any) -> Any:
    """1 for each row of logits (n, k) whose first largest value is at its label (n,), else 0:
    uint8 (n,).
    """
    return (logits.argmax(axis=1) == target).astype(np.uint8)


@right_answers.cuda(serves=_serves)
def _right_answers_cuda(logits: Any, target: Any) -> Any:
    (n, k), hits = logits.shape, empty((len(logits),), np.uint8, like=logits)
    labels, *_ = _arguments(target, None)
    logits = array_module(logits).ascontiguousarray(logits)
    SOURCE.launch("find_hits", (-(-n // BLOCK[1]),), BLOCK, logits, labels, hits, n, k)
    return hits
