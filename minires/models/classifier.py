"""What all models share: a stem, stages, a head; and He's initialisation.

A model is called with images (n, h, w, c), a `Tensor` or a bare float array, and returns logits (n,
num_classes).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from .. import functional as F
from .. import nn
from ..backend import is_array
from ..errors import DataError, DTypeError, ShapeError
from ..tensor import Tensor

__all__ = ["ImageClassifier", "initialise"]


class ImageClassifier(nn.Module):
    """Images through `stem`, the stages layer1, layer2, … and `head` to logits (n, num_classes)."""

    conv1: Any
    layer1: Any
    layer2: Any
    layer3: Any
    layer4: Any
    fc: Any

    def __init__(self, num_classes: int, in_channels: int = 3, smallest: int = 1) -> None:
        if num_classes < 1 or in_channels < 1:
            raise ValueError(
                f"{type(self).__name__}: num_classes={num_classes} and in_channels={in_channels} "
                "must be positive"
            )
        self.num_classes, self.in_channels, self.smallest = num_classes, in_channels, smallest

    def whiten(self, images: Any) -> None:
        """Start the first convolution by images (n, h, w, c), normalised as for training: see
        `nn.init.whitening_`.
        """
        nn.init.whitening_(self.conv1.weight, images)

    def stages(self) -> list[nn.Module]:
        """layer1, layer2, …"""
        return [stage for name, stage in self.named_children() if name.startswith("layer")]

    def stem(self, x: Tensor) -> Tensor:
        """What comes before the stages."""
        return x

    def pooled(self, x: Tensor) -> Tensor:
        """The last stage's output (n, h, w, c) -> what the classifier sees, (n, c)."""
        return F.global_avg_pool2d(x)

    def head(self, x: Tensor) -> Tensor:
        """The last stage's output (n, h, w, c) -> logits."""
        return self.fc(self.pooled(x))

    def features(self, x: Any) -> list[Tensor]:
        """The outputs of all stages, (n, h, w, c) each, largest map first, for detectors and
        segmenters.

        An image's side is divided, rounding up, by 4, 8, 16 and 32 with the imagenet stem, by 1, 2,
        4 and 8 with the cifar stem, by 1, 2 and 4 in He's CIFAR networks and wide ones, which have
        three stages. (`article_net`, no ResNet, pools inside its stages, rounding down: 2, 4, 8, 16
        and 16.) A pre-activation network's maps come before the BatchNorm and ReLU of what follows.
        `head(features(x)[-1])` are the logits.

        >>> from minires import models
        >>> maps = models.resnet20().eval().features(np.zeros((1, 32, 32, 3), np.float32))
        >>> [one.shape for one in maps]
        [(1, 32, 32, 16), (1, 16, 16, 32), (1, 8, 8, 64)]
        """
        x = self.stem(self.checked(x))
        outputs = []
        for stage in self.stages():
            x = stage(x)
            outputs.append(x)
        return outputs

    def embed(self, x: Any) -> Tensor:
        """Images (n, h, w, in_channels) -> one vector an image, (n, c): what the classifier sees.

        >>> from minires import models
        >>> models.resnet20().eval().embed(np.zeros((2, 32, 32, 3), np.float32)).shape
        (2, 64)
        """
        return self.pooled(self.features(x)[-1])

    def forward(self, x: Any) -> Tensor:
        """Images (n, h, w, in_channels) -> logits (n, num_classes)."""
        x = self.stem(self.checked(x))
        for stage in self.stages():
            x = stage(x)
        return self.head(x)

    def checked(self, x: Any) -> Tensor:
        """The images as a tensor of the model's dtype; raises ShapeError or DTypeError."""
        name, c = type(self).__name__, self.in_channels
        dtype = next(self.parameters()).dtype
        if not isinstance(x, Tensor):
            x = Tensor(x if is_array(x) else np.asarray(x))
            if x.dtype.kind == "f":  # a bare array has no gradient to lose
                x = Tensor(x.array.astype(dtype, copy=False))
        if x.ndim != 4:
            raise ShapeError(
                f"{name}: images have {x.ndim} axes but must be (n, h, w, {c}): x={x.shape}"
            )
        if x.shape[3] != c:
            hint = " (channels come last here)" if x.shape[1] == c else ""
            raise ShapeError(
                f"{name}: images have {x.shape[3]} channels but must have {c}{hint}: x={x.shape}"
            )
        if 0 in x.shape:
            raise ShapeError(f"{name}: the batch is empty: x={x.shape}")
        if min(x.shape[1:3]) < self.smallest:
            least = f"{self.smallest}x{self.smallest}"
            raise ShapeError(f"{name}: images must be {least} or larger: x={x.shape}")
        if x.dtype != dtype:
            raise DTypeError(
                f"{name}: images are {x.dtype} but the model is {dtype}; scale bytes to floats, "
                "convert floats with x.to(dtype) or model.to(dtype)"
            )
        if x.device == "cpu":  # elsewhere it would wait for the device
            finite = np.isfinite(x.array)
            if not finite.all():
                bad = int(finite.reshape(len(finite), -1).all(axis=1).argmin())
                raise DataError(f"{name}: image {bad} of {len(finite)} contains NaN or infinity")
        return x


def initialise(model: nn.Module, mode: str) -> None:
    """Draw all weights anew, convolutions normal with std = sqrt(2 / fan); mode: fan_in or fan_out.

    Source: He et al., "Delving deep into rectifiers", ICCV 2015.
    """
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode=mode, nonlinearity="relu")
        elif isinstance(module, nn.Linear):
            module.reset_parameters()
