"""The layers with weights, and `conv_norm`, by which blocks call a convolution with its BatchNorm.

Initial weights are those of PyTorch's layers: uniform with bound 1 / sqrt(fan_in).
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from .. import functional as F
from ..autograd import is_grad_enabled
from ..errors import ShapeError
from ..functional.conv import pair
from ..tensor import Tensor
from . import init
from .folded import folded, forget
from .module import Module, Parameter

__all__ = ["BatchNorm2d", "Conv2d", "Linear", "conv_norm"]

Size = int | tuple[int, int]


def _check_sizes(layer: str, **sizes: Any) -> None:
    for name, size in sizes.items():
        if not hasattr(size, "__index__") or size < 1:
            raise ShapeError(f"{layer}: {name} is {size!r} but must be an int of at least 1")


class Conv2d(Module):
    """Cross-correlation with weight (r, s, in // groups, out) and an optional bias (out,).

    >>> Conv2d(3, 16, 3, padding=1)(np.zeros((2, 8, 8, 3), np.float32)).shape
    (2, 8, 8, 16)
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Size,
        stride: Size = 1,
        padding: Size = 0,
        dilation: Size = 1,
        groups: int = 1,
        bias: bool = True,
    ) -> None:
        _check_sizes("Conv2d", in_channels=in_channels, out_channels=out_channels, groups=groups)
        if in_channels % groups or out_channels % groups:
            raise ShapeError(
                f"Conv2d: in_channels={in_channels} and out_channels={out_channels} must be "
                f"multiples of groups={groups}"
            )
        self.in_channels, self.out_channels, self.groups = in_channels, out_channels, groups
        self.kernel_size = pair("Conv2d", "kernel_size", kernel_size)
        pair("Conv2d", "stride", stride)
        pair("Conv2d", "padding", padding, least=0)
        pair("Conv2d", "dilation", dilation)
        self.stride, self.padding, self.dilation = stride, padding, dilation
        shape = (*self.kernel_size, in_channels // groups, out_channels)
        self.weight = Parameter(np.zeros(shape, np.float32))
        self.bias = Parameter(np.zeros(out_channels, np.float32)) if bias else None
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the weights anew."""
        init.kaiming_uniform_(self.weight, a=math.sqrt(5))
        if self.bias is not None:
            bound = 1 / math.sqrt(init.fans(self.weight.shape)[0])
            init.uniform_(self.bias, -bound, bound)

    @property
    def geometry(self) -> dict[str, Any]:
        """The keyword arguments of `functional.conv2d`."""
        return {
            "stride": self.stride,
            "padding": self.padding,
            "dilation": self.dilation,
            "groups": self.groups,
        }

    def forward(self, x: Any) -> Tensor:
        """(n, h, w, in) -> (n, p, q, out)."""
        return F.conv2d(x, self.weight, self.bias, **self.geometry)

    def extra_repr(self) -> str:
        default = {"stride": 1, "padding": 0, "dilation": 1, "groups": 1}
        options = {k: v for k, v in self.geometry.items() if v != default[k]}
        options |= {} if self.bias is not None else {"bias": False}
        shown = "".join(f", {name}={value}" for name, value in options.items())
        return f"{self.in_channels}, {self.out_channels}, kernel_size={self.kernel_size}{shown}"


class BatchNorm2d(Module):
    """Batch normalisation (Ioffe and Szegedy, ICML 2015) with PyTorch's conventions.

    In training a batch is normalised by its own mean and biased variance, and the running
    statistics move towards its mean and unbiased variance by `momentum` (None: the average of all
    batches so far). In evaluation the running statistics normalise. affine: scale by `weight` and
    shift by `bias`. track_running_stats: keep running statistics; without them every batch is
    normalised by its own, in evaluation too.
    """

    weight: Any  # Parameter (c,), None without affine
    bias: Any
    running_mean: Any  # bare array (c,)
    running_var: Any
    num_batches_tracked: Any  # bare integer array ()

    def __init__(
        self,
        num_features: int,
        eps: float = 1e-5,
        momentum: float | None = 0.1,
        affine: bool = True,
        track_running_stats: bool = True,
    ) -> None:
        _check_sizes("BatchNorm2d", num_features=num_features)
        self.num_features, self.eps, self.momentum = num_features, eps, momentum
        self.affine, self.track_running_stats = affine, track_running_stats
        self.weight = Parameter(np.ones(num_features, np.float32)) if affine else None
        self.bias = Parameter(np.zeros(num_features, np.float32)) if affine else None
        if track_running_stats:
            self.register_buffer("running_mean", np.zeros(num_features, np.float32))
            self.register_buffer("running_var", np.ones(num_features, np.float32))
            self.register_buffer("num_batches_tracked", np.zeros((), np.int64))

    @property
    def statistics(self) -> dict[str, Any]:
        """The keyword arguments of `functional.batch_norm`."""
        running = moving = None
        if self.track_running_stats:
            running = self.running_mean, self.running_var
            moving = (*running, self.num_batches_tracked, self.momentum) if self.training else None
        training = self.training or running is None
        return {"running": running, "training": training, "eps": self.eps, "moving": moving}

    def forward(self, x: Any) -> Tensor:
        """(n, h, w, c) -> (n, h, w, c)."""
        return F.batch_norm(x, self.weight, self.bias, **self.statistics)

    def extra_repr(self) -> str:
        default = {"eps": 1e-5, "momentum": 0.1, "affine": True, "track_running_stats": True}
        shown = "".join(f", {k}={vars(self)[k]}" for k in default if vars(self)[k] != default[k])
        return f"{self.num_features}{shown}"


def conv_norm(
    conv: Conv2d, bn: BatchNorm2d, x: Any, residual: Any = None, relu: bool = False
) -> Tensor:
    """relu(bn(conv(x)) + residual), as one fused operation where the layers allow it.

    In evaluation, inside `no_grad`, the BatchNorm is folded into the convolution's weights.

    >>> conv, bn = Conv2d(3, 8, 3, bias=False), BatchNorm2d(8)
    >>> conv_norm(conv, bn, np.ones((2, 5, 5, 3), np.float32), relu=True).shape
    (2, 3, 3, 8)
    """
    if bn.training:
        forget(conv)
    elif bn.track_running_stats and not is_grad_enabled():
        w, b, packed, _ = folded(conv, bn)
        return F.conv_bias(x, w, b, residual, relu=relu, packed=packed, **conv.geometry)
    if conv.bias is not None or not bn.affine:
        y = bn(conv(x))
        y = y if residual is None else y + residual
        return F.relu(y) if relu else y
    return F.conv_norm(
        x,
        conv.weight,
        bn.weight,
        bn.bias,
        residual,
        relu=relu,
        **conv.geometry,
        **bn.statistics,
    )


class Linear(Module):
    """x @ weight + bias with weight (in, out), the transpose of PyTorch's.

    flattened_from: (h, w, c) of the map that was flattened to make the inputs. PyTorch flattens (c,
    h, w), so `minires.weights` needs it to put the rows of such a layer's weight in order.

    >>> Linear(4, 2)(np.zeros((3, 4), np.float32)).shape
    (3, 2)
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        bias: bool = True,
        flattened_from: tuple[int, int, int] | None = None,
    ) -> None:
        _check_sizes("Linear", in_features=in_features, out_features=out_features)
        if flattened_from is not None and math.prod(flattened_from) != in_features:
            raise ShapeError(
                f"Linear: in_features is {in_features} but flattened_from={flattened_from} has "
                f"{math.prod(flattened_from)} values"
            )
        self.in_features, self.out_features = in_features, out_features
        self.flattened_from = flattened_from
        self.weight = Parameter(np.zeros((in_features, out_features), np.float32))
        self.bias = Parameter(np.zeros(out_features, np.float32)) if bias else None
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the weights anew."""
        init.kaiming_uniform_(self.weight, a=math.sqrt(5))
        if self.bias is not None:
            bound = 1 / math.sqrt(self.in_features)
            init.uniform_(self.bias, -bound, bound)

    def forward(self, x: Any) -> Tensor:
        """(n, in) -> (n, out)."""
        return F.linear(x, self.weight, self.bias)

    def extra_repr(self) -> str:
        return f"{self.in_features}, {self.out_features}" + (
            "" if self.bias is not None else ", bias=False"
        )
