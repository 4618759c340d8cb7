"""The networks in PyTorch, as short as they go, with torchvision's names; written from the papers.

He, Zhang, Ren, Sun: "Deep residual learning for image recognition" (2015) and "Identity mappings in
deep residual networks" (2016); Xie et al.: "Aggregated residual transformations" (2017); Zagoruyko,
Komodakis: "Wide residual networks" (2016). Pre-activation blocks project their activated input.
"""
# pyright: reportMissingImports=false

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as TF
from torch import nn

from . import pure

__all__ = ["ArticleNet", "Cifar", "PreActResNet", "ResNet", "fill", "from_memory", "to_memory"]


def conv(c: int, k: int, size: int = 3, stride: int = 1, groups: int = 1) -> nn.Conv2d:
    return nn.Conv2d(c, k, size, stride, size // 2, groups=groups, bias=False)


class OptionA(nn.Module):
    """The parameterless shortcut: every second pixel, zeros for the new channels on both sides."""

    def __init__(self, extra: int) -> None:
        super().__init__()
        self.extra = extra

    def forward(self, x):
        return TF.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, self.extra // 2, self.extra // 2))


class Nothing(nn.Module):
    """No shortcut: the plain counterparts."""

    def forward(self, x):
        return 0


class Basic(nn.Module):
    expansion = 1

    def __init__(self, c: int, k: int, stride: int, groups: int, width: int, option: str) -> None:
        super().__init__()
        self.conv1, self.bn1 = conv(c, k, 3, stride), nn.BatchNorm2d(k)
        self.conv2, self.bn2 = conv(k, k), nn.BatchNorm2d(k)
        self.downsample = shortcut(c, k, stride, option)

    def forward(self, x):
        y = torch.relu(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(y))
        return torch.relu(y + self.downsample(x))


class Bottleneck(nn.Module):
    expansion = 4

    def __init__(self, c: int, k: int, stride: int, groups: int, width: int, option: str) -> None:
        super().__init__()
        inner = k * width // 64 * groups
        self.conv1, self.bn1 = conv(c, inner, 1), nn.BatchNorm2d(inner)
        self.conv2, self.bn2 = conv(inner, inner, 3, stride, groups), nn.BatchNorm2d(inner)
        self.conv3, self.bn3 = conv(inner, 4 * k, 1), nn.BatchNorm2d(4 * k)
        self.downsample = shortcut(c, 4 * k, stride, option)

    def forward(self, x):
        y = torch.relu(self.bn1(self.conv1(x)))
        y = torch.relu(self.bn2(self.conv2(y)))
        y = self.bn3(self.conv3(y))
        return torch.relu(y + self.downsample(x))


def shortcut(c: int, k: int, stride: int, option: str) -> nn.Module:
    if option == "plain":
        return Nothing()
    if c == k and stride == 1:
        return nn.Identity()
    if option == "A":
        return OptionA(k - c)
    return nn.Sequential(conv(c, k, 1, stride), nn.BatchNorm2d(k))


class ResNet(nn.Module):
    """torchvision's, or with a 3x3 stem for 32x32 images."""

    def __init__(self, block, depths, classes, stem, groups=1, width=64) -> None:
        super().__init__()
        large = stem == "imagenet"
        self.conv1 = conv(3, 64, 7, 2) if large else conv(3, 64)
        self.bn1 = nn.BatchNorm2d(64)
        self.pool = nn.MaxPool2d(3, 2, 1) if large else nn.Identity()
        c = 64
        for i, (k, depth) in enumerate(zip((64, 128, 256, 512), depths)):
            blocks = []
            for j in range(depth):
                blocks.append(block(c, k, 2 if i and not j else 1, groups, width, "B"))
                c = k * block.expansion
            self.add_module(f"layer{i + 1}", nn.Sequential(*blocks))
        self.fc = nn.Linear(c, classes)

    def forward(self, x):
        x = self.pool(torch.relu(self.bn1(self.conv1(x))))
        for layer in (self.layer1, self.layer2, self.layer3, self.layer4):
            x = layer(x)
        return self.fc(x.mean((2, 3)))


class Cifar(nn.Module):
    """He's 6n + 2 nets of 16, 32 and 64 channels."""

    def __init__(self, depth: int, classes: int = 10, option: str = "A") -> None:
        super().__init__()
        self.conv1, self.bn1 = conv(3, 16), nn.BatchNorm2d(16)
        c = 16
        for i, k in enumerate((16, 32, 64)):
            blocks = []
            for j in range((depth - 2) // 6):
                blocks.append(Basic(c, k, 2 if i and not j else 1, 1, 64, option))
                c = k
            self.add_module(f"layer{i + 1}", nn.Sequential(*blocks))
        self.fc = nn.Linear(64, classes)

    def forward(self, x):
        x = torch.relu(self.bn1(self.conv1(x)))
        x = self.layer3(self.layer2(self.layer1(x)))
        return self.fc(x.mean((2, 3)))


class PreActivation(nn.Module):
    """BN, ReLU, convolution, twice or (deep) thrice. The first block of all and those that
    change the shape branch after their first ReLU."""

    def __init__(self, c: int, k: int, stride: int, first: bool, deep: bool) -> None:
        super().__init__()
        if deep:
            plan = [(c, k // 4, 1, 1), (k // 4, k // 4, 3, stride), (k // 4, k, 1, 1)]
        else:
            plan = [(c, k, 3, stride), (k, k, 3, 1)]
        self.length = len(plan)
        for i, (inside, outside, size, step) in enumerate(plan):
            self.add_module(f"bn{i + 1}", nn.BatchNorm2d(inside))
            self.add_module(f"conv{i + 1}", conv(inside, outside, size, step))
        changes = c != k or stride > 1
        self.branches_late = changes or first
        self.downsample = nn.Sequential(conv(c, k, 1, stride)) if changes else nn.Identity()

    def forward(self, x):
        y = torch.relu(self.bn1(x))
        residual = self.downsample(y if self.branches_late else x)
        y = self.conv1(y)
        for i in range(2, self.length + 1):
            y = getattr(self, f"conv{i}")(torch.relu(getattr(self, f"bn{i}")(y)))
        return y + residual


class PreActResNet(nn.Module):
    """preact_resnet and wide_resnet: a bare stem, pre-activation blocks, a final BN and ReLU."""

    def __init__(self, stem: int, widths, depths, classes: int, deep: bool = False) -> None:
        super().__init__()
        self.conv1 = conv(3, stem)
        c = stem
        for i, (k, depth) in enumerate(zip(widths, depths)):
            blocks = []
            for j in range(depth):
                stride = 2 if i and not j else 1
                blocks.append(PreActivation(c, k, stride, i + j == 0, deep))
                c = k
            self.add_module(f"layer{i + 1}", nn.Sequential(*blocks))
        self.bn = nn.BatchNorm2d(c)
        self.fc = nn.Linear(c, classes)

    def forward(self, x):
        x = self.conv1(x)
        for name, layer in self.named_children():
            x = layer(x) if name.startswith("layer") else x
        return self.fc(torch.relu(self.bn(x)).mean((2, 3)))


class ArticleNet(nn.Module):
    """Five stages of two 3x3 convolution + BN + ReLU, the first four max-pooled."""

    def __init__(self, classes: int = 10, bias: bool = False) -> None:
        super().__init__()
        c = 3
        for i, k in enumerate((64, 128, 256, 512, 512)):
            stage = nn.Module()
            for j in (1, 2):
                stage.add_module(f"conv{j}", nn.Conv2d(c, k, 3, 1, 1, bias=bias))
                stage.add_module(f"bn{j}", nn.BatchNorm2d(k))
                c = k
            self.add_module(f"layer{i + 1}", stage)
        self.fc = nn.Linear(c, classes)

    def forward(self, x):
        for i in range(1, 6):
            stage = getattr(self, f"layer{i}")
            x = torch.relu(stage.bn1(stage.conv1(x)))
            x = torch.relu(stage.bn2(stage.conv2(x)))
            x = TF.max_pool2d(x, 2) if i < 5 else x
        return self.fc(x.mean((2, 3)))


def to_memory(tensor: torch.Tensor) -> np.ndarray:
    """An array in this project's layout: (k, c, r, s) -> (r, s, c, k), (out, in) -> (in, out)"""
    a = tensor.detach().numpy().copy()  # the tensor may change later
    return a.transpose(2, 3, 1, 0) if a.ndim == 4 else a.T


def from_memory(a: np.ndarray) -> torch.Tensor:
    """The way back."""
    return torch.from_numpy(a.transpose(3, 2, 0, 1) if a.ndim == 4 else a.T)


def fill(model: nn.Module) -> nn.Module:
    """Give every parameter and buffer its pure value (float64)."""
    model = model.double()
    with torch.no_grad():
        for name, tensor in model.state_dict().items():
            tensor.copy_(from_memory(pure.parameter(name, to_memory(tensor).shape)))
    return model
