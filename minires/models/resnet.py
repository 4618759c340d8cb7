"""Residual networks, and their plain counterparts.

Sources: He et al., "Deep residual learning for image recognition", CVPR 2016; Xie et al.,
"Aggregated residual transformations for deep neural networks", CVPR 2017 (ResNeXt); Zagoruyko and
Komodakis, "Wide residual networks", BMVC 2016 (wide bottleneck). Module names, and the bottleneck's
stride on its 3x3 convolution, are torchvision's.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from .. import functional as F
from .. import nn
from ..nn import conv_norm
from ..tensor import Tensor
from .classifier import ImageClassifier, initialise

__all__ = [
    "BasicBlock",
    "Bottleneck",
    "PlainBlock",
    "Projection",
    "ResNet",
    "ZeroPad",
    "conv1x1",
    "conv3x3",
    "downsample",
    "resnet18",
    "resnet34",
    "resnet50",
    "resnet101",
    "resnet152",
    "resnext50_32x4d",
    "stem_conv",
    "wide_resnet50_2",
]

STEMS = ("imagenet", "cifar")


def conv1x1(channels: int, width: int, stride: int = 1) -> nn.Conv2d:
    """A 1x1 convolution without bias."""
    return nn.Conv2d(channels, width, 1, stride, bias=False)


def conv3x3(channels: int, width: int, stride: int = 1, groups: int = 1) -> nn.Conv2d:
    """A 3x3 convolution without bias that keeps the map's size, but for its stride."""
    return nn.Conv2d(channels, width, 3, stride, padding=1, groups=groups, bias=False)


def stem_conv(stem: str, channels: int, width: int) -> nn.Conv2d:
    """The first convolution: 7x7 with stride 2 ("imagenet") or 3x3 ("cifar")."""
    if stem not in STEMS:
        raise ValueError(f"stem is {stem!r} but must be one of {', '.join(STEMS)}")
    if stem == "cifar":
        return conv3x3(channels, width)
    return nn.Conv2d(channels, width, 7, stride=2, padding=3, bias=False)


class Projection(nn.Sequential):
    """Shortcut by projection (option B): 1x1 convolution and BatchNorm."""

    def __init__(self, channels: int, width: int, stride: int) -> None:
        super().__init__(conv1x1(channels, width, stride), nn.BatchNorm2d(width))

    def forward(self, x: Tensor) -> Tensor:
        """(n, h, w, c) -> (n, p, q, k)."""
        return conv_norm(self[0], self[1], x)


class ZeroPad(nn.Module):
    """Shortcut without parameters (option A): pixels skipped, new channels zero on both sides."""

    def __init__(self, channels: int, width: int, stride: int) -> None:
        self.stride, self.before = stride, (width - channels) // 2
        self.after = width - channels - self.before

    def forward(self, x: Tensor) -> Tensor:
        """(n, h, w, c) -> (n, p, q, k)."""
        x = x[:, :: self.stride, :: self.stride]
        return F.pad(x, widths=((0, 0), (0, 0), (0, 0), (self.before, self.after)))

    def extra_repr(self) -> str:
        return f"before={self.before}, after={self.after}, stride={self.stride}"


def downsample(channels: int, width: int, stride: int, shortcut: str) -> nn.Module | None:
    """What the shortcut does where a block changes the shape; None where it does not."""
    kinds = {"A": ZeroPad, "B": Projection}
    if shortcut not in kinds:
        raise ValueError(f"shortcut is {shortcut!r} but must be one of {', '.join(kinds)}")
    if stride == 1 and channels == width:
        return None
    return kinds[shortcut](channels, width, stride)


class PlainBlock(nn.Module):
    """Two 3x3 convolutions without a shortcut."""

    expansion = 1

    def __init__(self, channels: int, width: int, stride: int = 1) -> None:
        self.conv1 = conv3x3(channels, width, stride)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = conv3x3(width, width)
        self.bn2 = nn.BatchNorm2d(width)

    def forward(self, x: Tensor) -> Tensor:
        """(n, h, w, c) -> (n, p, q, width)."""
        y = conv_norm(self.conv1, self.bn1, x, relu=True)
        return conv_norm(self.conv2, self.bn2, y, relu=True)


class BasicBlock(PlainBlock):
    """Two 3x3 convolutions and a shortcut."""

    def __init__(self, channels: int, width: int, stride: int = 1, shortcut: str = "B") -> None:
        super().__init__(channels, width, stride)
        self.downsample = downsample(channels, width, stride, shortcut)

    def forward(self, x: Tensor) -> Tensor:
        """(n, h, w, c) -> (n, p, q, width)."""
        shortcut = self.downsample(x) if self.downsample else x
        y = conv_norm(self.conv1, self.bn1, x, relu=True)
        return conv_norm(self.conv2, self.bn2, y, residual=shortcut, relu=True)


class Bottleneck(nn.Module):
    """1x1 down, 3x3, 1x1 up to four times the width, and a shortcut."""

    expansion = 4

    def __init__(
        self,
        channels: int,
        width: int,
        stride: int = 1,
        shortcut: str = "B",
        groups: int = 1,
        width_per_group: int = 64,
    ) -> None:
        inner, outer = width * width_per_group // 64 * groups, width * self.expansion
        self.conv1 = conv1x1(channels, inner)
        self.bn1 = nn.BatchNorm2d(inner)
        self.conv2 = conv3x3(inner, inner, stride, groups)
        self.bn2 = nn.BatchNorm2d(inner)
        self.conv3 = conv1x1(inner, outer)
        self.bn3 = nn.BatchNorm2d(outer)
        self.downsample = downsample(channels, outer, stride, shortcut)

    def forward(self, x: Tensor) -> Tensor:
        """(n, h, w, c) -> (n, p, q, 4 * width)."""
        shortcut = self.downsample(x) if self.downsample else x
        y = conv_norm(self.conv1, self.bn1, x, relu=True)
        y = conv_norm(self.conv2, self.bn2, y, relu=True)
        return conv_norm(self.conv3, self.bn3, y, residual=shortcut, relu=True)


Block = type[PlainBlock] | type[Bottleneck]


class ResNet(ImageClassifier):
    """A stem, stages of blocks, each but the first halving the map, a linear classifier.

    block: PlainBlock, BasicBlock or Bottleneck; depths, widths: blocks and channels of each stage.
    stem: "imagenet" (7x7 stride 2 and max-pooling: the first stage sees a quarter of the size) or
    "cifar" (3x3). fan: "fan_out" or "fan_in", of He's initialisation. zero_init_residual: start
    every block as its shortcut (Goyal et al., 2017). options: the block's.

    >>> with nn.init.skip():
    ...     model = ResNet(BasicBlock, (1, 1), num_classes=10, stem="cifar", widths=(4, 8))
    >>> sum(p.size for p in model.parameters())
    1454
    """

    def __init__(
        self,
        block: Block,
        depths: Sequence[int],
        num_classes: int = 1000,
        stem: str = "imagenet",
        *,
        widths: Sequence[int] = (64, 128, 256, 512),
        in_channels: int = 3,
        fan: str = "fan_out",
        zero_init_residual: bool = False,
        **options: Any,
    ) -> None:
        super().__init__(num_classes, in_channels)
        self.pools = stem == "imagenet"
        with nn.init.skip():
            self.conv1 = stem_conv(stem, in_channels, widths[0])
            self.bn1 = nn.BatchNorm2d(widths[0])
            channels = widths[0]
            for i, (depth, width) in enumerate(zip(depths, widths, strict=True)):
                stage = nn.Sequential()
                for j in range(depth):
                    stride = 2 if i > 0 and j == 0 else 1
                    stage.append(block(channels, width, stride, **options))
                    channels = width * block.expansion
                setattr(self, f"layer{i + 1}", stage)
            self.fc = nn.Linear(channels, num_classes)
        initialise(self, fan)
        if zero_init_residual:
            for module in self.modules():
                if isinstance(module, BasicBlock | Bottleneck):
                    last = module.bn2 if isinstance(module, BasicBlock) else module.bn3
                    nn.init.zeros_(last.weight)

    def stem(self, x: Tensor) -> Tensor:
        """(n, h, w, in_channels) -> (n, p, q, widths[0])."""
        x = conv_norm(self.conv1, self.bn1, x, relu=True)
        return F.max_pool2d(x, kernel_size=3, stride=2, padding=1) if self.pools else x


def resnet18(num_classes: int = 1000, stem: str = "imagenet", **options: Any) -> ResNet:
    """ResNet-18: 11,689,512 parameters; 11,173,962 with stem="cifar" and 10 classes."""
    return ResNet(BasicBlock, (2, 2, 2, 2), num_classes, stem, **options)


def resnet34(num_classes: int = 1000, stem: str = "imagenet", **options: Any) -> ResNet:
    """ResNet-34: 21,797,672 parameters."""
    return ResNet(BasicBlock, (3, 4, 6, 3), num_classes, stem, **options)


def resnet50(num_classes: int = 1000, stem: str = "imagenet", **options: Any) -> ResNet:
    """ResNet-50: 25,557,032 parameters."""
    return ResNet(Bottleneck, (3, 4, 6, 3), num_classes, stem, **options)


def resnet101(num_classes: int = 1000, stem: str = "imagenet", **options: Any) -> ResNet:
    """ResNet-101: 44,549,160 parameters."""
    return ResNet(Bottleneck, (3, 4, 23, 3), num_classes, stem, **options)


def resnet152(num_classes: int = 1000, stem: str = "imagenet", **options: Any) -> ResNet:
    """ResNet-152: 60,192,808 parameters."""
    return ResNet(Bottleneck, (3, 8, 36, 3), num_classes, stem, **options)


def resnext50_32x4d(num_classes: int = 1000, stem: str = "imagenet", **options: Any) -> ResNet:
    """ResNeXt-50, 32 groups of width 4: 25,028,904 parameters."""
    options = {"groups": 32, "width_per_group": 4, **options}
    return ResNet(Bottleneck, (3, 4, 6, 3), num_classes, stem, **options)


def wide_resnet50_2(num_classes: int = 1000, stem: str = "imagenet", **options: Any) -> ResNet:
    """ResNet-50 with 3x3 convolutions twice as wide: 68,883,240 parameters."""
    options = {"width_per_group": 128, **options}
    return ResNet(Bottleneck, (3, 4, 6, 3), num_classes, stem, **options)
