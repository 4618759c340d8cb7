"""Stochastic gradient descent."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from ..kernels.optim import sgd_step
from .flat import Flat
from .optimizer import Optimizer

__all__ = ["SGD"]

INFINITY = float("inf")


class SGD(Optimizer):
    """Stochastic gradient descent with momentum, Nesterov's momentum and weight decay, as in
    PyTorch.

    params: parameters, or groups: dicts of "params" and options (see `no_decay_groups`).
    weight_decay: w's share that is added to its gradient.

    Raises ValueError for options out of range, and for nesterov without momentum or with dampening.

    Source: Sutskever et al., "On the importance of initialization and momentum in deep learning",
    ICML 2013.

    >>> import minires as mr
    >>> w = mr.tensor([1.0, 2.0], requires_grad=True)
    >>> optimizer = mr.optim.SGD([w], lr=0.1, momentum=0.9)
    >>> (w * w).sum().backward()
    >>> optimizer.step()
    >>> w.numpy()
    array([0.8, 1.6], dtype=float32)
    """

    limits = dict.fromkeys(("lr", "momentum", "weight_decay"), (0, INFINITY))
    buffers = ("momentum_buffer",)

    def __init__(
        self,
        params: Iterable[Any],
        lr: float,
        momentum: float = 0.0,
        dampening: float = 0.0,
        nesterov: bool = False,
        weight_decay: float = 0.0,
    ) -> None:
        super().__init__(
            params,
            lr=lr,
            momentum=momentum,
            dampening=dampening,
            nesterov=nesterov,
            weight_decay=weight_decay,
        )

    def _check_options(self, options: dict[str, Any]) -> None:
        if options["nesterov"] and (options["momentum"] <= 0 or options["dampening"] != 0):
            raise ValueError(
                f"{self.name}: nesterov needs momentum above 0 and dampening 0, "
                f"got momentum={options['momentum']} and dampening={options['dampening']}"
            )

    def _update(self, flat: Flat, part: slice, step: Any) -> None:
        names = ("momentum", "dampening", "nesterov", "weight_decay")
        options = {name: flat.group[name] for name in names}
        m = flat.buffer("momentum_buffer")[part] if options["momentum"] else None
        first = step == 1 if isinstance(step, int) else step
        arrays = flat.w[part], flat.g[part], m
        sgd_step(*arrays, **options, lr=flat.rate, first=first, factor=flat.factor)
