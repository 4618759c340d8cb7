"""PyTorch's ResNet-18 step on the same GPU, where PyTorch is installed: only to compare with."""
# pyright: reportMissingImports=false

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

__all__ = ["network", "their_steps"]

ROUNDS = 7
DTYPES = {"float32": None, "tf32": None, "bf16": "bfloat16", "fp16": "float16"}


def network(classes: int) -> Any:
    """torchvision's ResNet-18, without torchvision."""
    from torch import nn, relu

    def conv(c: int, k: int, r: int, stride: int) -> Any:
        bare = nn.Conv2d(c, k, r, stride, r // 2, bias=False)
        return nn.Sequential(bare, nn.BatchNorm2d(k))

    class Block(nn.Module):
        def __init__(self, c: int, k: int, stride: int) -> None:
            super().__init__()
            self.a, self.b = conv(c, k, 3, stride), conv(k, k, 3, 1)
            self.shortcut = nn.Identity() if c == k else conv(c, k, 1, stride)

        def forward(self, x: Any) -> Any:
            return relu(self.b(relu(self.a(x))) + self.shortcut(x))

    layers, c = [conv(3, 64, 7, 2), nn.ReLU(), nn.MaxPool2d(3, 2, 1)], 64
    for k in (64, 128, 256, 512):
        layers += [Block(c, k, 1 if c == k else 2), Block(k, k, 1)]
        c = k
    head = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(c, classes)]
    return nn.Sequential(*layers, *head)


def their_steps(
    images: np.ndarray, labels: np.ndarray, sgd: dict[str, float], device: str = "cuda"
) -> Iterator[tuple[str, Callable[[int], float]]]:
    """(precision, run(most calls) -> seconds of a step), memory channels-last as PyTorch likes it
    best. Nothing where PyTorch sees no GPU."""
    import torch

    if device == "cuda" and not torch.cuda.is_available():
        return
    x = torch.from_numpy(images).permute(0, 3, 1, 2).to(device)
    y = torch.from_numpy(labels).to(device)
    for name, dtype in DTYPES.items():
        yield name, lambda most, n=name, d=dtype: _seconds(torch, x, y, sgd, n, d, most)


def _seconds(
    torch: Any, x: Any, y: Any, sgd: dict[str, float], name: str, dtype: str | None, most: int
) -> float:
    device = x.device.type
    model = network(1000).to(device, memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(model.parameters(), **sgd)
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = name == "tf32"
    torch.backends.cudnn.benchmark = True
    scaler = torch.amp.GradScaler(device, enabled=name == "fp16" and device == "cuda")
    kind = getattr(torch, dtype or "bfloat16")

    def step() -> None:
        with torch.autocast(device, kind, enabled=dtype is not None):
            loss = torch.nn.functional.cross_entropy(model(x), y)
        optimizer.zero_grad()
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()

    def timed(count: int) -> float:
        start = time.perf_counter()
        for _ in range(count):
            step()
        if device == "cuda":
            torch.cuda.synchronize()
        return (time.perf_counter() - start) / count

    timed(2)
    count = max(1, min(most, int(0.5 / timed(1))))
    return statistics.median(timed(count) for _ in range(ROUNDS))
