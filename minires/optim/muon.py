"""Muon: steps for weight matrices that turn every direction by the same amount."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import numpy as np

from ..backend import array_module
from ..kernels.memory import empty
from ..kernels.parallel import for_each
from ..kernels.product import multiply
from .flat import Flat
from .optimizer import Optimizer
from .sgd import SGD

__all__ = ["Muon", "orthogonalised"]

ITERATIONS = 3
A, B, C = 3.4445, -4.7750, 2.0315  # a x + b x³ + c x⁵ is steep at 0 and stays near 1 beyond


def orthogonalised(g: Any, iterations: int = ITERATIONS) -> Any:
    """A matrix (m, n) near the orthogonal one U Vᵀ of g = U S Vᵀ: its singular values are brought
    near 1 (0.7 to 1.2, the smallest ones less), by iterations of a polynomial. Zeros stay zeros.

    Source: Jordan et al., "Muon: an optimizer for hidden layers in neural networks", 2024, whose
    coefficients these are.

    >>> g = np.diag([4.0, 3.0, 2.0])
    >>> np.diag(orthogonalised(g)).round(2).tolist()
    [1.13, 0.75, 1.13]
    """
    xp = array_module(g)
    wide = g.shape[0] <= g.shape[1]
    x = xp.ascontiguousarray(g if wide else g.T)
    x = x / (xp.sqrt((x * x).sum()) + 1e-7).astype(x.dtype)
    for _ in range(iterations):
        s = _product(x, x.T)
        x = A * x + _product(B * s + C * _product(s, s), x)
    return x if wide else x.T


def _product(a: Any, b: Any) -> Any:
    if isinstance(a, np.ndarray):
        return a @ b
    out = empty((a.shape[0], b.shape[1]), a.dtype, like=a)
    multiply(a[None], b[None], out[None])
    return out


class Muon(SGD):
    """Momentum whose steps for weight matrices are orthogonal, and SGD for everything else.

    A weight (..., k) of rank 2 or more, as a matrix of k columns, is first scaled to the norm √k
    and then moves by lr times the `orthogonalised` momentum: lr is about the angle in radians that
    it turns by in a step, whatever the scale of gradients. Weight decay would change nothing. The
    fixed norm is meant for convolutions with a BatchNorm behind them, which does not see it.

    Groups with "orthogonal": False, for BatchNorms, biases and the classifier, are updated as by
    `SGD`. Raises ValueError for options out of range, and for parameters of rank 0 or 1 elsewhere.

    Source: Jordan et al., "Muon: an optimizer for hidden layers in neural networks", 2024, in the
    form of their CIFAR-10 record (github.com/KellerJordan/cifar10-airbench).

    >>> import minires as mr
    >>> w = mr.tensor(np.eye(2), requires_grad=True)
    >>> optimizer = mr.optim.Muon([w], lr=0.5, momentum=0.0, nesterov=False)
    >>> (w * mr.tensor([[0.0, 3.0], [-3.0, 0.0]])).sum().backward()
    >>> optimizer.step()
    >>> w.numpy().round(1).tolist()
    [[1.0, -0.6], [0.6, 1.0]]
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float,
        momentum: float = 0.85,
        nesterov: bool = True,
        weight_decay: float = 0.0,
        orthogonal: bool = True,
    ) -> None:
        options = {"momentum": momentum, "dampening": 0.0, "nesterov": nesterov}
        options |= {"weight_decay": weight_decay, "orthogonal": orthogonal}
        Optimizer.__init__(self, params, lr=lr, **options)

    def _check_options(self, options: dict[str, Any]) -> None:
        super()._check_options(options)
        for p in options["params"]:
            if options["orthogonal"] and p.ndim < 2:
                raise ValueError(
                    f"Muon: a parameter of shape {p.shape} is no matrix; "
                    'put it in a group with "orthogonal": False'
                )

    def _update(self, flat: Flat, part: slice, step: Any) -> None:
        if not flat.group["orthogonal"]:
            super()._update(flat, part, step)
            return
        m = flat.buffer("momentum_buffer") if flat.group["momentum"] else None
        start, stop = flat.offsets.index(part.start), flat.offsets.index(part.stop)
        if flat.device == "cpu":  # one thread a matrix: rounding is the same for any number
            for_each(lambda i: self._turn(flat, m, start + i), stop - start)
        else:
            for i in range(start, stop):
                self._turn(flat, m, i)

    @staticmethod
    def _turn(flat: Flat, m: Any, i: int) -> None:
        """Update parameter i of the group."""
        k = flat.params[i].shape[-1]
        place = slice(flat.offsets[i], flat.offsets[i + 1])
        w, d = (a[place].reshape(-1, k) for a in (flat.w, flat.g))
        xp, before = array_module(w), None
        if flat.factor is not None:  # on a GPU: below zero, nothing is to change
            skip = flat.factor.reshape(-1)[0] < 0
            before = w.copy()
        if m is not None:
            m, momentum = m[place].reshape(-1, k), flat.group["momentum"]
            new = momentum * m + d
            m[...] = new if before is None else xp.where(skip, m, new)
            d = d + momentum * new if flat.group["nesterov"] else new
        norm = xp.sqrt((w * w).sum())
        w *= (math.sqrt(k) / norm).astype(w.dtype)
        w -= (flat.rate * orthogonalised(d)).astype(w.dtype)
        if before is not None:
            w[...] = xp.where(skip, before, w)
