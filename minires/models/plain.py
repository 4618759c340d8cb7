"""The plain counterparts: the same layers without shortcuts (He et al., CVPR 2016, figure 3).

Deeper ones train worse, which is what residual learning cures (figures 1 and 6 of the paper).
"""

from __future__ import annotations

from typing import Any

from .cifar_resnet import cifar_resnet
from .resnet import PlainBlock, ResNet

__all__ = ["plain18", "plain20", "plain34", "plain56"]


def plain18(num_classes: int = 1000, stem: str = "imagenet", **options: Any) -> ResNet:
    """resnet18 without shortcuts."""
    return ResNet(PlainBlock, (2, 2, 2, 2), num_classes, stem, **options)


def plain34(num_classes: int = 1000, stem: str = "imagenet", **options: Any) -> ResNet:
    """resnet34 without shortcuts."""
    return ResNet(PlainBlock, (3, 4, 6, 3), num_classes, stem, **options)


def plain20(num_classes: int = 10, **options: Any) -> ResNet:
    """resnet20 without shortcuts."""
    return cifar_resnet(PlainBlock, 20, num_classes, **options)


def plain56(num_classes: int = 10, **options: Any) -> ResNet:
    """resnet56 without shortcuts."""
    return cifar_resnet(PlainBlock, 56, num_classes, **options)
