"""torchvision's layouts with pure weights: what is compared without PyTorch by stored numbers.

Stored are the logits in float64, a sketch of every stage's output, and a checksum of names and
shapes. The published ResNet-20 and -56 are compared by logits too, where their files are at hand.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping

import numpy as np

from . import pure

__all__ = ["KEPT", "PUBLISHED", "TORCHVISION", "file_state", "images", "listing"]

TORCHVISION = ("resnet18", "resnet34", "resnet50", "resnet101", "resnet152")
TORCHVISION += ("resnext50_32x4d", "wide_resnet50_2")
PUBLISHED = {"resnet20": "resnet20-12fca82f.th", "resnet56": "resnet56-4bfd9763.th"}
KEPT = 2000  # numbers: two images' logits whole, stages as sketches


def images(size: int = 64) -> np.ndarray:
    """(2, size, size, 3) float64, exact in float32."""
    return pure.images(f"interop.images.{size}", 2, size)


def file_state(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, np.ndarray]:
    """The pure weights of a network in the files' layout, float32, by names and shapes there."""
    state = {}
    for name, shape in shapes.items():
        memory = {4: (2, 3, 1, 0), 2: (1, 0)}.get(len(shape), range(len(shape)))
        array = pure.parameter(name, [shape[axis] for axis in memory])
        array = array.transpose(np.argsort(list(memory))) if array.ndim > 1 else array
        kept = array.dtype.kind == "i"
        state[name] = np.ascontiguousarray(array, array.dtype if kept else np.float32)
        state[name] = state[name].reshape(shape)
    return state


def listing(shapes: Mapping[str, tuple[int, ...]]) -> float:
    """A checksum of names and shapes, in any order."""
    return float(zlib.crc32("\n".join(f"{n} {tuple(shapes[n])}" for n in sorted(shapes)).encode()))
