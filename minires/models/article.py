"""`article_net`: ten convolutions without shortcuts, at times presented as "ResNet-18"."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from .. import functional as F
from .. import nn
from ..nn import conv_norm
from ..tensor import Tensor
from .classifier import ImageClassifier, initialise
from .resnet import conv3x3

__all__ = ["ArticleNet", "ArticleStage", "article_net"]

WIDTHS = (64, 128, 256, 512, 512)
DROPOUTS = (0.3, 0.4, 0.4, 0.4, 0.5)


class ArticleStage(nn.Module):
    """Two 3x3 convolutions with BatchNorm and ReLU, max-pooling by 2 where wanted, dropout."""

    def __init__(self, channels: int, width: int, pools: bool, dropout: float) -> None:
        self.conv1 = conv3x3(channels, width)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = conv3x3(width, width)
        self.bn2 = nn.BatchNorm2d(width)
        self.pools = pools
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        """(n, h, w, c) -> (n, h / 2, w / 2, width), or (n, h, w, width) without pooling."""
        x = conv_norm(self.conv1, self.bn1, x, relu=True)
        x = conv_norm(self.conv2, self.bn2, x, relu=True)
        return self.dropout(F.max_pool2d(x, kernel_size=2) if self.pools else x)


class ArticleNet(ImageClassifier):
    """Five stages, the mean of the last map, a linear classifier. Images are 16x16 or larger."""

    def __init__(
        self, num_classes: int = 10, in_channels: int = 3, widths: Sequence[int] = WIDTHS
    ) -> None:
        super().__init__(num_classes, in_channels, smallest=16)
        channels = in_channels
        with nn.init.skip():
            for i, (width, dropout) in enumerate(zip(widths, DROPOUTS, strict=True)):
                setattr(self, f"layer{i + 1}", ArticleStage(channels, width, i < 4, dropout))
                channels = width
            self.fc = nn.Linear(channels, num_classes)
        initialise(self, "fan_in")


def article_net(num_classes: int = 10, **options: Any) -> ArticleNet:
    """The network above: 9,413,066 parameters for 10 classes."""
    return ArticleNet(num_classes, **options)
