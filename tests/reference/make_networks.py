"""The logits of whole networks in evaluation mode, from PyTorch in float64; writes networks.npz.

python -m tests.reference.make_networks
"""
# pyright: reportMissingImports=false

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from .networks import NETWORKS, images, label
from .store import save
from .torch_nets import ArticleNet, Basic, Bottleneck, Cifar, PreActResNet, ResNet, fill

__all__ = ["BUILD", "main"]

IMAGENET = (64, 128, 256, 512)


def wide(depth: int, width: int, num_classes: int) -> nn.Module:
    widths = [16 * width, 32 * width, 64 * width]
    return PreActResNet(16, widths, [(depth - 4) // 6] * 3, num_classes)


def deep_preact(num_classes: int) -> nn.Module:
    widths = [4 * k for k in IMAGENET]
    return PreActResNet(64, widths, [3, 4, 6, 3], num_classes, deep=True)


BUILD: dict[str, Callable[..., nn.Module]] = {
    "resnet20": lambda num_classes, shortcut: Cifar(20, num_classes, shortcut),
    "plain20": lambda num_classes: Cifar(20, num_classes, "plain"),
    "resnet18": lambda num_classes, stem: ResNet(Basic, (2, 2, 2, 2), num_classes, stem),
    "resnet50": lambda num_classes, stem: ResNet(Bottleneck, (3, 4, 6, 3), num_classes, stem),
    "resnext50_32x4d": lambda num_classes, stem: ResNet(
        Bottleneck, (3, 4, 6, 3), num_classes, stem, groups=32, width=4
    ),
    "preact_resnet18": lambda num_classes, stem: PreActResNet(64, IMAGENET, [2] * 4, num_classes),
    "preact_resnet50": lambda num_classes, stem: deep_preact(num_classes),
    "wide_resnet": wide,
    "article_net": lambda num_classes: ArticleNet(num_classes),
}


def logits(name: str, arguments: dict[str, Any], size: int) -> torch.Tensor:
    model = fill(BUILD[name](**arguments)).eval()
    count = sum(p.numel() for p in model.parameters())
    with torch.no_grad():
        out = model(torch.from_numpy(images(size)).permute(0, 3, 1, 2))
    print(f"{label(name, arguments, size)}: {count:,} parameters, logits {out.std().item():.3g}")
    return out


def main() -> None:
    found = {label(*network): logits(*network).numpy() for network in NETWORKS}
    save("networks", found, f"PyTorch {torch.__version__}, float64, CPU")


if __name__ == "__main__":
    main()
