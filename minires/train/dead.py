"""How much of a network has died: ReLU channels that are zero whatever the image."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from ..autograd import no_grad
from ..backend import to_device
from ..op import listen
from ..tensor import Tensor

__all__ = ["dead_relus"]


def dead_relus(model: Any, batches: Iterable[tuple[Any, Any]], device: str = "cpu") -> float | None:
    """The share of ReLU outputs' channels, 0-1, that are 0 at every pixel of every image of
    `batches`; None for a network without ReLUs. The model is left in evaluation mode.

    >>> from minires import nn
    >>> import numpy as np
    >>> layer = nn.Linear(1, 4)
    >>> _ = layer.weight.assign(np.array([[1.0, -1.0, 0.0, 0.0]])), layer.bias.assign(0.0)
    >>> dead_relus(nn.Sequential(layer, nn.ReLU()), [(np.ones((2, 1), np.float32), None)])
    0.75
    """
    model.eval()
    alive: list[Any] = []  # of each ReLU in the order of a forward pass, which channels
    for x, _ in batches:
        seen: list[Any] = []

        def hear(
            name: str, inputs: Any, params: dict[str, Any], y: Tensor, seen: list[Any] = seen
        ) -> None:
            if name == "relu" or params.get("relu"):
                seen.append((y.array > 0).any(axis=tuple(range(y.ndim - 1))))

        with no_grad(), listen(hear):
            model(to_device(x, device))
        alive = [a | b for a, b in zip(alive, seen, strict=True)] if alive else seen
    count = sum(len(channels) for channels in alive)
    living = sum(int(Tensor(channels).numpy().sum()) for channels in alive)
    return 1 - living / count if count else None
