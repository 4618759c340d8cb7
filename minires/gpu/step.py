"""Whole training steps, ours and PyTorch's: ResNet-18 on ImageNet-sized pictures."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from typing import Any

import numpy as np

from .. import functional as F
from .. import models, optim
from ..backend import precision, to_device
from ..tensor import Tensor
from .clock import cupy_module, seconds
from .rates import precisions

__all__ = ["our_step", "time_steps"]

# name: (arguments of the constructor, image size)
MODELS: dict[str, tuple[dict[str, Any], int]] = {
    "resnet18": ({"num_classes": 1000, "stem": "imagenet"}, 224),
    "resnet20": ({"num_classes": 10}, 8),
}
SGD: dict[str, Any] = {"lr": 0.01, "momentum": 0.9, "weight_decay": 1e-4}


def _batch(model: str, n: int) -> tuple[np.ndarray, np.ndarray]:
    rng, (arguments, side) = np.random.default_rng(0), MODELS[model]
    images = rng.standard_normal((n, side, side, 3), np.float32)
    return images, rng.integers(0, arguments["num_classes"], n)


def our_step(model: str, n: int, name: str) -> Callable[[], Tensor]:
    """A step on a batch that is on the GPU; it returns the loss, which nobody waits for."""
    network = models.build(model, **MODELS[model][0]).to("cuda")
    optimizer = optim.SGD(network.parameters(), **SGD)
    x, y = (to_device(a, "cuda") for a in _batch(model, n))

    def step() -> Tensor:
        with precision(name, "cuda"):
            loss = F.cross_entropy(network(x), y)
            optimizer.zero_grad()
            loss.backward()
        optimizer.step()
        return loss

    return step


def time_steps(model: str, n: int, most: int) -> list[dict[str, Any]]:
    """A row for each precision; of ResNet-18 also PyTorch's, if it is installed and sees the GPU.

    n: images of a batch; most: steps of a round. Rows of ours have the first and the last loss.
    """
    rows = []
    for name in precisions():
        step = our_step(model, n, name)
        first = step().item()
        row = _row("minires", name, n, seconds(step, most))
        rows.append({**row, "losses": [first, step().item()]})
        del step
        cupy_module().get_default_memory_pool().free_all_blocks()
    if model == "resnet18" and importlib.util.find_spec("torch"):
        from .rival import their_steps

        for name, run in their_steps(*_batch(model, n), SGD):
            rows.append(_row("torch", name, n, run(most)))
    return rows


def _row(engine: str, name: str, n: int, taken: float) -> dict[str, Any]:
    return {"engine": engine, "precision": name, "ms": 1e3 * taken, "images_s": n / taken}
