"""The residual networks of He et al. for CIFAR-10: 6 n + 2 layers, widths 16, 32, 64.

Source: "Deep residual learning for image recognition", CVPR 2016, section 4.2.
"""

from __future__ import annotations

from typing import Any

from .resnet import BasicBlock, Block, ResNet

__all__ = ["cifar_resnet", "resnet20", "resnet32", "resnet44", "resnet56", "resnet110"]


def cifar_resnet(block: Block, depth: int, num_classes: int, **options: Any) -> ResNet:
    """A 3x3 stem and three stages of (depth - 2) / 6 blocks."""
    if depth < 8 or depth % 6 != 2:
        raise ValueError(
            f"cifar_resnet: depth is {depth} but must be 6 n + 2 (8, 14, 20, 26, 32, …)"
        )
    options = {"widths": (16, 32, 64), "fan": "fan_in", **options}
    return ResNet(block, [depth // 6] * 3, num_classes, "cifar", **options)


def resnet20(num_classes: int = 10, shortcut: str = "A", **options: Any) -> ResNet:
    """ResNet-20: 269,722 parameters. shortcut: "A" pads with zeros, "B" projects."""
    return cifar_resnet(BasicBlock, 20, num_classes, shortcut=shortcut, **options)


def resnet32(num_classes: int = 10, shortcut: str = "A", **options: Any) -> ResNet:
    """ResNet-32: 464,154 parameters."""
    return cifar_resnet(BasicBlock, 32, num_classes, shortcut=shortcut, **options)


def resnet44(num_classes: int = 10, shortcut: str = "A", **options: Any) -> ResNet:
    """ResNet-44: 658,586 parameters."""
    return cifar_resnet(BasicBlock, 44, num_classes, shortcut=shortcut, **options)


def resnet56(num_classes: int = 10, shortcut: str = "A", **options: Any) -> ResNet:
    """ResNet-56: 853,018 parameters."""
    return cifar_resnet(BasicBlock, 56, num_classes, shortcut=shortcut, **options)


def resnet110(num_classes: int = 10, shortcut: str = "A", **options: Any) -> ResNet:
    """ResNet-110: 1,727,962 parameters."""
    return cifar_resnet(BasicBlock, 110, num_classes, shortcut=shortcut, **options)
