"""The whole networks that are compared in evaluation mode, with pure weights and statistics."""

from __future__ import annotations

from typing import Any

import numpy as np

from . import pure

__all__ = ["NETWORKS", "images", "label"]

# (constructor, its arguments, image size)
NETWORKS: list[tuple[str, dict[str, Any], int]] = [
    ("resnet20", {"num_classes": 10, "shortcut": "A"}, 32),
    ("resnet20", {"num_classes": 10, "shortcut": "B"}, 32),
    ("resnet18", {"num_classes": 10, "stem": "cifar"}, 32),
    ("resnet50", {"num_classes": 7, "stem": "imagenet"}, 64),
    ("resnext50_32x4d", {"num_classes": 7, "stem": "imagenet"}, 64),
    ("preact_resnet18", {"num_classes": 10, "stem": "cifar"}, 32),
    ("preact_resnet50", {"num_classes": 10, "stem": "cifar"}, 32),
    ("wide_resnet", {"depth": 16, "width": 2, "num_classes": 10}, 32),
    ("plain20", {"num_classes": 10}, 32),
    ("article_net", {"num_classes": 10}, 32),
]


def label(name: str, arguments: dict[str, Any], size: int) -> str:
    """How the table and the stored file call a network."""
    listed = ", ".join(f"{k}={v}" for k, v in arguments.items())
    return f"{name}({listed}) on {size}x{size}"


def images(size: int) -> np.ndarray:
    """(2, size, size, 3) float64."""
    return pure.images(f"networks.images.{size}", 2, size)
