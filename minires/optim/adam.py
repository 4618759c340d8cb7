"""Adam, and AdamW, whose weight decay does not pass through the moments."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from ..kernels.optim import adam_step
from .flat import Flat
from .optimizer import Optimizer

__all__ = ["Adam", "AdamW"]

INFINITY = float("inf")


class Adam(Optimizer):
    """Adam, as in PyTorch: `eps` outside the square root, weight decay added to the gradient.

    betas: how much of the running means of the gradient and of its square is kept at each step.

    Source: Kingma and Ba, "Adam: a method for stochastic optimization", ICLR 2015.

    >>> import minires as mr
    >>> w = mr.tensor([1.0, 2.0], requires_grad=True)
    >>> optimizer = mr.optim.Adam([w], lr=0.25)
    >>> (w * w).sum().backward()
    >>> optimizer.step()
    >>> w.numpy()
    array([0.75, 1.75], dtype=float32)
    """

    limits = dict.fromkeys(("lr", "eps", "weight_decay"), (0, INFINITY))
    buffers = ("exp_avg", "exp_avg_sq")
    decoupled = False

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
    ) -> None:
        super().__init__(params, lr=lr, betas=betas, eps=eps, weight_decay=weight_decay)

    def _check_options(self, options: dict[str, Any]) -> None:
        betas = options["betas"]
        if len(betas) != 2 or not all(0 <= beta < 1 for beta in betas):
            raise ValueError(
                f"{self.name}: betas is {betas} but must be two numbers of at least 0 and below 1"
            )

    def _update(self, flat: Flat, part: slice, step: Any) -> None:
        options = {name: flat.group[name] for name in ("eps", "weight_decay")}
        beta1, beta2 = flat.group["betas"]
        adam_step(
            flat.w[part],
            flat.g[part],
            flat.buffer("exp_avg")[part],
            flat.buffer("exp_avg_sq")[part],
            **options,
            lr=flat.rate,
            factor=flat.factor,
            step=step,
            beta1=beta1,
            beta2=beta2,
            decoupled=self.decoupled,
        )


class AdamW(Adam):
    """Adam with decoupled weight decay: each step also multiplies w by 1 - lr * weight_decay.

    Source: Loshchilov and Hutter, "Decoupled weight decay regularization", ICLR 2019.
    """

    decoupled = True

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 1e-2,
    ) -> None:
        super().__init__(params, lr, betas, eps, weight_decay)
