"""Gradient clipping."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import numpy as np

from ..errors import NonFiniteError
from ..kernels.optim import squared_norm
from ..tensor import Tensor

__all__ = ["clip_grad_norm_"]

EPS = 1e-6  # PyTorch's, so that the results are PyTorch's


def clip_grad_norm_(
    params: Iterable[Any] | Tensor, max_norm: float, error_if_nonfinite: bool = False
) -> float:
    """Scale all gradients by one factor so that their joint Euclidean norm is at most `max_norm`.

    Returns the norm before, the same whatever the number of threads. Raises NonFiniteError for a
    norm of NaN or Inf if `error_if_nonfinite`.

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
    norm = math.sqrt(sum(squared_norm(p.grad.reshape(-1)) for p in having))
    if error_if_nonfinite and not math.isfinite(norm):
        raise NonFiniteError(f"clip_grad_norm_: the norm of the gradients is {norm}")
    factor = max_norm / (norm + EPS)
    if not factor >= 1:
        with np.errstate(invalid="ignore"):  # 0 * Inf
            for p in having:
                p.grad = p.grad * factor  # not in place: somebody may hold the array
    return norm
