"""Building blocks of networks: `Module`, the layers, and how weights start (`init`)."""

from . import init
from .containers import Identity, ModuleList, Sequential
from .layers import BatchNorm2d, Conv2d, Linear, conv_norm
from .module import Module, Parameter, StateMismatch
from .stateless import (
    GELU,
    AdaptiveAvgPool2d,
    AvgPool2d,
    CrossEntropyLoss,
    Dropout,
    Flatten,
    GlobalAvgPool2d,
    MaxPool2d,
    ReLU,
    Sigmoid,
    SiLU,
    Softmax,
    Tanh,
)

__all__ = [
    "GELU",
    "AdaptiveAvgPool2d",
    "AvgPool2d",
    "BatchNorm2d",
    "Conv2d",
    "CrossEntropyLoss",
    "Dropout",
    "Flatten",
    "GlobalAvgPool2d",
    "Identity",
    "Linear",
    "MaxPool2d",
    "Module",
    "ModuleList",
    "Parameter",
    "ReLU",
    "Sequential",
    "SiLU",
    "Sigmoid",
    "Softmax",
    "StateMismatch",
    "Tanh",
    "conv_norm",
    "init",
]
