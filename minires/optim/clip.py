"""Gradient clipping."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import numpy as np

from ..backend import array_module, device_of
from ..errors import NonFiniteError
from ..kernels.judge import sums_of_all
from ..kernels.optim import squared_norm
from ..tensor import Tensor

__all__ = ["clip_grad_norm_"]

EPS = 1e-6  # PyTorch's, so that the results are PyTorch's


def clip_grad_norm_(
    params: Iterable[Any] | Tensor, max_norm: float, error_if_nonfinite: bool = False
) -> Any:
    """Scale all gradients by one factor so that their joint Euclidean norm is at most `max_norm`.

    Returns the norm before, the same whatever the number of threads; of gradients on a GPU as an
    array () there, for reading it would wait. Raises NonFiniteError for a norm of NaN or Inf if
    `error_if_nonfinite`, which looks at it.

    Source: Pascanu, Mikolov and Bengio, "On the difficulty of training recurrent neural networks",
    ICML 2013.

    >>> import minires as mr
    >>> w = mr.tensor([3.0, 4.0], requires_grad=True)
    >>> (w * w).sum().backward()
    >>> mr.optim.clip_grad_norm_([w], max_norm=1.0)
    10.0
    >>> w.grad.round(3)
    array([0.6, 0.8], dtype=float32)
    """
    if not max_norm >= 0:
        raise ValueError(f"clip_grad_norm_: max_norm is {max_norm} but must be at least 0")
    params = [params] if isinstance(params, Tensor) else params
    having = [p for p in params if p.grad is not None]
    on_gpu = bool(having) and device_of(having[0].grad) != "cpu"
    norm: Any = _norm_on_gpu(having) if on_gpu else _norm(having)
    if error_if_nonfinite and not math.isfinite(found := norm.item() if on_gpu else norm):
        raise NonFiniteError(f"clip_grad_norm_: the norm of the gradients is {found}")
    if on_gpu:
        factor = array_module(norm).minimum(max_norm / (norm + EPS), 1)
        for p in having:
            p.grad = p.grad * factor.astype(p.grad.dtype)
        return norm
    factor = max_norm / (norm + EPS)
    if not factor >= 1:
        with np.errstate(invalid="ignore"):  # 0 * Inf
            for p in having:
                p.grad = p.grad * factor  # not in place: somebody may hold the array
    return norm


def _norm(having: list[Any]) -> float:
    return math.sqrt(sum(squared_norm(p.grad.reshape(-1)) for p in having))


def _norm_on_gpu(having: list[Any]) -> Any:
    parts = sums_of_all([p.grad.reshape(-1) for p in having])
    return array_module(parts).sqrt(parts.sum())
