"""Layers without weights: each is the operation of that name with its parameters kept."""

from __future__ import annotations

from typing import Any

from .. import functional as F
from ..tensor import Tensor
from .module import Module

__all__ = [
    "GELU",
    "AdaptiveAvgPool2d",
    "AvgPool2d",
    "CrossEntropyLoss",
    "Dropout",
    "Flatten",
    "GlobalAvgPool2d",
    "MaxPool2d",
    "ReLU",
    "SiLU",
    "Sigmoid",
    "Softmax",
    "Tanh",
]

Size = int | tuple[int, int]


class _Stateless(Module):
    """Shows its parameters in `repr` as they were given."""

    def extra_repr(self) -> str:
        shown = {name: value for name, value in vars(self).items() if name != "training"}
        return ", ".join(f"{name}={value}" for name, value in shown.items())


class ReLU(_Stateless):
    """max(x, 0)."""

    def forward(self, x: Any) -> Tensor:
        """Any shape in, the same out."""
        return F.relu(x)


class GELU(_Stateless):
    """x times the normal distribution function of x (Hendrycks and Gimpel, 2016)."""

    def forward(self, x: Any) -> Tensor:
        """Any shape in, the same out."""
        return F.gelu(x)


class SiLU(_Stateless):
    """x * sigmoid(x)."""

    def forward(self, x: Any) -> Tensor:
        """Any shape in, the same out."""
        return F.silu(x)


class Sigmoid(_Stateless):
    """1 / (1 + exp(-x))."""

    def forward(self, x: Any) -> Tensor:
        """Any shape in, the same out."""
        return F.sigmoid(x)


class Tanh(_Stateless):
    """The hyperbolic tangent."""

    def forward(self, x: Any) -> Tensor:
        """Any shape in, the same out."""
        return F.tanh(x)


class Softmax(_Stateless):
    """exp(x) over its sum along `axis`."""

    def __init__(self, axis: int = -1) -> None:
        self.axis = axis

    def forward(self, x: Any) -> Tensor:
        """Any shape in, the same out."""
        return F.softmax(x, axis=self.axis)


class Dropout(_Stateless):
    """In training zeroes each value with probability `p` and divides the others by 1 - p.

    >>> Dropout(0.3)
    Dropout(p=0.3)
    """

    def __init__(self, p: float = 0.5) -> None:
        if not 0 <= p < 1:
            raise ValueError(f"Dropout: p is {p} but must be at least 0 and less than 1")
        self.p = p

    def forward(self, x: Any) -> Tensor:
        """Any shape in, the same out; draws the next key of `minires.random`."""
        return F.dropout(x, p=self.p, training=self.training)


class MaxPool2d(_Stateless):
    """The maximum of each window; `stride` is `kernel_size` unless given."""

    def __init__(self, kernel_size: Size, stride: Size | None = None, padding: Size = 0) -> None:
        self.kernel_size, self.stride, self.padding = kernel_size, stride, padding

    def forward(self, x: Any) -> Tensor:
        """(n, h, w, c) -> (n, p, q, c)."""
        return F.max_pool2d(
            x, kernel_size=self.kernel_size, stride=self.stride, padding=self.padding
        )


class AvgPool2d(_Stateless):
    """The mean of each window, padding counted unless told otherwise."""

    def __init__(
        self,
        kernel_size: Size,
        stride: Size | None = None,
        padding: Size = 0,
        count_include_pad: bool = True,
    ) -> None:
        self.kernel_size, self.stride, self.padding = kernel_size, stride, padding
        self.count_include_pad = count_include_pad

    def forward(self, x: Any) -> Tensor:
        """(n, h, w, c) -> (n, p, q, c)."""
        return F.avg_pool2d(
            x,
            kernel_size=self.kernel_size,
            stride=self.stride,
            padding=self.padding,
            count_include_pad=self.count_include_pad,
        )


class AdaptiveAvgPool2d(_Stateless):
    """Means of windows chosen so that the output is `output_size`."""

    def __init__(self, output_size: Size) -> None:
        self.output_size = output_size

    def forward(self, x: Any) -> Tensor:
        """(n, h, w, c) -> (n, p, q, c)."""
        return F.adaptive_avg_pool2d(x, output_size=self.output_size)


class GlobalAvgPool2d(_Stateless):
    """The mean of each channel."""

    def forward(self, x: Any) -> Tensor:
        """(n, h, w, c) -> (n, c)."""
        return F.global_avg_pool2d(x)


class Flatten(_Stateless):
    """Merge all axes but the first.

    channels_first: take a map's values in the order (c, h, w), so that the linear layer after it
    has PyTorch's weights; without it they come as they lie in memory, (h, w, c).
    """

    def __init__(self, channels_first: bool = False) -> None:
        self.channels_first = channels_first

    def forward(self, x: Any) -> Tensor:
        """(n, …) -> (n, m)."""
        if self.channels_first and x.ndim == 4:
            x = F.transpose(x, axes=(0, 3, 1, 2))
        return F.flatten(x, start_axis=1)


class CrossEntropyLoss(_Stateless):
    """-log softmax(logits)[target], averaged; see `functional.cross_entropy`."""

    def __init__(
        self, label_smoothing: float = 0.0, reduction: str = "mean", weight: Any = None
    ) -> None:
        self.label_smoothing, self.reduction, self.weight = label_smoothing, reduction, weight

    def forward(self, logits: Any, target: Any) -> Tensor:
        """logits (n, k), target class indices (n,) or probabilities (n, k) -> ()."""
        return F.cross_entropy(
            logits,
            target,
            label_smoothing=self.label_smoothing,
            reduction=self.reduction,
            weight=self.weight,
        )
