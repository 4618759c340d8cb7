"""Residual networks with BatchNorm and ReLU before each convolution.

Source: He et al., "Identity mappings in deep residual networks", ECCV 2016. As there, a last
BatchNorm and ReLU follow the last block, and where a block changes the shape (and in the first one)
its activation comes before the branching.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from .. import functional as F
from .. import nn
from ..nn import conv_norm
from ..tensor import Tensor
from .classifier import ImageClassifier, initialise
from .resnet import conv1x1, conv3x3, stem_conv

__all__ = [
    "PreActBlock",
    "PreActBottleneck",
    "PreActResNet",
    "downsample",
    "preact_resnet18",
    "preact_resnet34",
    "preact_resnet50",
    "preact_resnet101",
    "preact_resnet152",
]


def downsample(channels: int, width: int, stride: int, first: bool) -> nn.Module | None:
    """What the shortcut does to the activated input; None where it takes the input as it came."""
    if stride == 1 and channels == width:
        return nn.Identity() if first else None
    return nn.Sequential(conv1x1(channels, width, stride))


class PreActBlock(nn.Module):
    """Two 3x3 convolutions, each after BatchNorm and ReLU, dropout between them."""

    expansion = 1

    def __init__(
        self, channels: int, width: int, stride: int = 1, first: bool = False, dropout: float = 0.0
    ) -> None:
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv1 = conv3x3(channels, width, stride)
        self.bn2 = nn.BatchNorm2d(width)
        self.dropout = nn.Dropout(dropout)
        self.conv2 = conv3x3(width, width)
        self.downsample = downsample(channels, width, stride, first)

    def forward(self, x: Tensor) -> Tensor:
        """(n, h, w, c) -> (n, p, q, width)."""
        y = F.relu(self.bn1(x))
        shortcut = self.downsample(y) if self.downsample else x
        y = conv_norm(self.conv1, self.bn2, y, relu=True)
        return self.conv2(self.dropout(y)) + shortcut


class PreActBottleneck(nn.Module):
    """1x1 down, 3x3, 1x1 up to four times the width, each after BatchNorm and ReLU."""

    expansion = 4

    def __init__(self, channels: int, width: int, stride: int = 1, first: bool = False) -> None:
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv1 = conv1x1(channels, width)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv2 = conv3x3(width, width, stride)
        self.bn3 = nn.BatchNorm2d(width)
        self.conv3 = conv1x1(width, 4 * width)
        self.downsample = downsample(channels, 4 * width, stride, first)

    def forward(self, x: Tensor) -> Tensor:
        """(n, h, w, c) -> (n, p, q, 4 * width)."""
        y = F.relu(self.bn1(x))
        shortcut = self.downsample(y) if self.downsample else x
        y = conv_norm(self.conv1, self.bn2, y, relu=True)
        y = conv_norm(self.conv2, self.bn3, y, relu=True)
        return self.conv3(y) + shortcut


class PreActResNet(ImageClassifier):
    """A bare convolution, stages of pre-activation blocks, BatchNorm and ReLU, a linear classifier.

    stem_width: channels of the stem, widths[0] unless given. The other arguments are those of
    `ResNet`.

    >>> with nn.init.skip():
    ...     model = PreActResNet(
    ...         PreActBlock, (1, 1), num_classes=10, stem="cifar", widths=(4, 8)
    ...     )
    >>> [name for name, _ in model.named_children()]
    ['conv1', 'layer1', 'layer2', 'bn', 'fc']
    """

    def __init__(
        self,
        block: type[PreActBlock] | type[PreActBottleneck],
        depths: Sequence[int],
        num_classes: int = 1000,
        stem: str = "imagenet",
        *,
        widths: Sequence[int] = (64, 128, 256, 512),
        stem_width: int | None = None,
        in_channels: int = 3,
        fan: str = "fan_out",
        **options: Any,
    ) -> None:
        super().__init__(num_classes, in_channels)
        self.pools = stem == "imagenet"
        channels = stem_width or widths[0]
        with nn.init.skip():
            self.conv1 = stem_conv(stem, in_channels, channels)
            for i, (depth, width) in enumerate(zip(depths, widths, strict=True)):
                stage = nn.Sequential()
                for j in range(depth):
                    stride = 2 if i > 0 and j == 0 else 1
                    stage.append(block(channels, width, stride, first=i + j == 0, **options))
                    channels = width * block.expansion
                setattr(self, f"layer{i + 1}", stage)
            self.bn = nn.BatchNorm2d(channels)
            self.fc = nn.Linear(channels, num_classes)
        initialise(self, fan)

    def stem(self, x: Tensor) -> Tensor:
        """(n, h, w, in_channels) -> (n, p, q, stem_width)."""
        x = self.conv1(x)
        return F.max_pool2d(x, kernel_size=3, stride=2, padding=1) if self.pools else x

    def pooled(self, x: Tensor) -> Tensor:
        """The last stage's output (n, h, w, c) -> what the classifier sees, (n, c)."""
        return super().pooled(F.relu(self.bn(x)))


def preact_resnet18(
    num_classes: int = 1000, stem: str = "imagenet", **options: Any
) -> PreActResNet:
    """Pre-activation ResNet-18: 11,172,170 parameters with stem="cifar" and 10 classes."""
    return PreActResNet(PreActBlock, (2, 2, 2, 2), num_classes, stem, **options)


def preact_resnet34(
    num_classes: int = 1000, stem: str = "imagenet", **options: Any
) -> PreActResNet:
    """Pre-activation ResNet-34."""
    return PreActResNet(PreActBlock, (3, 4, 6, 3), num_classes, stem, **options)


def preact_resnet50(
    num_classes: int = 1000, stem: str = "imagenet", **options: Any
) -> PreActResNet:
    """Pre-activation ResNet-50."""
    return PreActResNet(PreActBottleneck, (3, 4, 6, 3), num_classes, stem, **options)


def preact_resnet101(
    num_classes: int = 1000, stem: str = "imagenet", **options: Any
) -> PreActResNet:
    """Pre-activation ResNet-101."""
    return PreActResNet(PreActBottleneck, (3, 4, 23, 3), num_classes, stem, **options)


def preact_resnet152(
    num_classes: int = 1000, stem: str = "imagenet", **options: Any
) -> PreActResNet:
    """Pre-activation ResNet-152."""
    return PreActResNet(PreActBottleneck, (3, 8, 36, 3), num_classes, stem, **options)
