"""`whitened_resnet`: a residual network made to learn CIFAR-10 in the fewest operations.

Its first convolution is no part of what is learnt: it makes the pixels of every 2x2 patch
uncorrelated and of unit variance, as measured on the training images. All other convolutions start
by passing their input on, scales of BatchNorms stay 1, and logits are small, so that large steps
are safe from the first one.

Source: Jordan, "94% on CIFAR-10 in 3.29 seconds on a single GPU", 2024, arXiv:2404.00498 (there
without shortcuts).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from .. import functional as F
from .. import nn
from ..nn import conv_norm
from ..tensor import Tensor
from .classifier import ImageClassifier

__all__ = ["WhitenedResNet", "WhitenedStage", "whitened_resnet"]

WIDTHS = (64, 256, 256)
STATISTICS = 0.4  # how far a batch moves the running statistics: a run has few batches
SHRINK = 1 / 9  # of the logits


class WhitenedStage(nn.Module):
    """A convolution that halves the map by max-pooling, and one with a shortcut around it."""

    def __init__(self, channels: int, width: int) -> None:
        self.conv1 = _passing(channels, width)
        self.bn1 = nn.BatchNorm2d(width, momentum=STATISTICS)
        self.conv2 = _passing(width, width)
        self.bn2 = nn.BatchNorm2d(width, momentum=STATISTICS)

    def forward(self, x: Tensor) -> Tensor:
        """(n, h, w, c) -> (n, h // 2, w // 2, width)."""
        x = F.gelu(self.bn1(F.max_pool2d(self.conv1(x), kernel_size=2)))
        return F.gelu(conv_norm(self.conv2, self.bn2, x, residual=x))


class WhitenedResNet(ImageClassifier):
    """2x2 whitening, three stages, the maximum of the last map, a linear layer. Images are 16x16 or
    larger. Call `whiten` with training images before training.
    """

    def __init__(
        self, num_classes: int = 10, in_channels: int = 3, widths: Sequence[int] = WIDTHS
    ) -> None:
        super().__init__(num_classes, in_channels, smallest=16)
        channels = 8 * in_channels  # the whitened values of a patch, and their negatives
        self.conv1 = nn.Conv2d(in_channels, channels, 2)
        for i, width in enumerate(widths):
            setattr(self, f"layer{i + 1}", WhitenedStage(channels, width))
            channels = width
        self.fc = nn.Linear(channels, num_classes, bias=False)
        for p in self.fixed():
            p.requires_grad = False

    def fixed(self) -> list[Any]:
        """The parameters that training leaves alone."""
        norms = [m for m in self.modules() if isinstance(m, nn.BatchNorm2d)]
        return [self.conv1.weight, *(norm.weight for norm in norms)]

    def whiten(self, images: Any) -> None:
        """Set the first convolution by images (n, h, w, c), normalised as for training."""
        super().whiten(images)
        if self.conv1.bias is not None:
            self.conv1.bias.assign(0.0)

    def stem(self, x: Tensor) -> Tensor:
        """(n, h, w, c) -> (n, h - 1, w - 1, 8 c)."""
        return F.gelu(self.conv1(x))

    def pooled(self, x: Tensor) -> Tensor:
        """The largest value of each channel."""
        return F.global_max_pool2d(x)

    def head(self, x: Tensor) -> Tensor:
        """The last stage's output (n, h, w, c) -> logits."""
        return self.fc(self.pooled(x)) * SHRINK


def _passing(channels: int, width: int) -> nn.Conv2d:
    """A 3x3 convolution whose first outputs are its inputs, the others drawn as usual."""
    conv = nn.Conv2d(channels, width, 3, padding=1, bias=False)
    weight = conv.weight.numpy().copy()
    weight[..., :channels] = nn.init.dirac_(nn.Conv2d(channels, channels, 3).weight).numpy()
    conv.weight.assign(weight)
    return conv


def whitened_resnet(num_classes: int = 10, **options: Any) -> WhitenedResNet:
    """The network above: 1,972,792 parameters for 10 classes of colour images."""
    return WhitenedResNet(num_classes, **options)
