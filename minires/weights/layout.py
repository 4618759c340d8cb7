"""The two layouts of weights, and the only place that changes one into the other.

                    minires (memory)        PyTorch (files)
    convolution     (r, s, c, k)            (k, c, r, s)
    linear          (in, out)               (out, in)
    all others      as they are

The inputs of a linear layer behind a flattened map come in the order (h, w, c) here and (c, h, w)
there. Which layers these are cannot be seen from a weight, so the model must say it,
`nn.Linear(..., flattened_from=(h, w, c))`, or flatten in PyTorch's order,
`nn.Flatten(channels_first=True)`. A model that shows an `nn.Flatten` before a linear layer and says
neither is refused, unless its map is 1x1; one that flattens inside a `forward` of its own cannot be
seen and must say it unasked.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from .. import nn
from ..errors import DataError, ShapeError

__all__ = ["file_shape", "flattened_maps", "to_file", "to_memory"]

Map = tuple[int, int, int]


def to_memory(name: str, array: np.ndarray, *, flattened_from: Map | None = None) -> np.ndarray:
    """A weight as minires keeps it, from a file's; `name` is for the error only. Always a
    C-contiguous copy.

    flattened_from: (h, w, c) of the map that a linear layer's inputs were. Raises ShapeError when
    it does not fit.

    >>> to_memory("conv1.weight", np.zeros((16, 3, 5, 7))).shape
    (5, 7, 3, 16)
    """
    if flattened_from is not None:
        h, w, c = _fitting(name, array.shape, 1, flattened_from)
        out = array.shape[0]
        return array.reshape(out, c, h, w).transpose(2, 3, 1, 0).reshape(h * w * c, out).copy()
    axes = {4: (2, 3, 1, 0), 2: (1, 0)}.get(array.ndim)
    return array.copy(order="C") if axes is None else array.transpose(axes).copy(order="C")


def to_file(name: str, array: np.ndarray, *, flattened_from: Map | None = None) -> np.ndarray:
    """The inverse of `to_memory`: a weight as PyTorch keeps it.

    >>> to_file("fc.weight", np.zeros((512, 10))).shape
    (10, 512)
    """
    if flattened_from is not None:
        h, w, c = _fitting(name, array.shape, 0, flattened_from)
        out = array.shape[1]
        return array.reshape(h, w, c, out).transpose(3, 2, 0, 1).reshape(out, c * h * w).copy()
    axes = {4: (3, 2, 0, 1), 2: (1, 0)}.get(array.ndim)
    return array.copy(order="C") if axes is None else array.transpose(axes).copy(order="C")


def file_shape(shape: tuple[int, ...]) -> tuple[int, ...]:
    """The shape in a file of a weight of `shape` in memory.

    >>> file_shape((3, 3, 64, 128)), file_shape((512, 10)), file_shape((64,))
    ((128, 64, 3, 3), (10, 512), (64,))
    """
    if len(shape) == 4:
        r, s, c, k = shape
        return k, c, r, s
    return shape[::-1] if len(shape) == 2 else tuple(shape)


def _fitting(name: str, shape: tuple[int, ...], axis: int, flattened_from: Map) -> Map:
    h, w, c = flattened_from
    if len(shape) != 2 or shape[axis] != h * w * c:
        raise ShapeError(f"{name}: shape {shape} does not fit flattened_from={flattened_from}")
    return flattened_from


def flattened_maps(model: Any) -> dict[str, Map]:
    """`{name of a linear layer's weight: (h, w, c)}` for the layers that declare a flattened map.

    Raises DataError for a layer that follows an `nn.Flatten`, has not one input a channel, and does
    not declare its map.
    """
    maps: dict[str, Map] = {}
    channels: int | None = None  # of the newest map
    flat = False
    for path, module in model.named_modules() if hasattr(model, "named_modules") else ():
        if isinstance(module, nn.Linear):
            if module.flattened_from is not None:
                maps[f"{path}.weight" if path else "weight"] = module.flattened_from
            elif flat and module.in_features != channels:
                raise DataError(
                    f"layer {path} (Linear, {module.in_features} inputs) follows a Flatten:"
                    " files order its inputs (c, h, w), minires (h, w, c):"
                    " say nn.Linear(..., flattened_from=(h, w, c))"
                )
            channels, flat = module.out_features, False
        elif isinstance(module, nn.Flatten):
            flat = not module.channels_first
        elif isinstance(module, nn.Conv2d):
            channels, flat = module.out_channels, False
    return maps
