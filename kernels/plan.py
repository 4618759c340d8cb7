"""Which algorithm serves which convolution on the CPU: the one place that decides.

    winograd    3x3, stride 1: a fourth of the multiplications (`winograd`)
    im2col      any window, stride and dilation, one group: products of a BLAS (`conv`)
    reference   groups and mixed dtypes: array code (`conv`)

Winograd computes whole 4x4 tiles of outputs with 36 products each, and transforms the weights
first, which costs as much as some 48 tiles. So it needs images that fill their tiles and enough of
them. Measured on one thread of an AMD EPYC (Zen 4), all three directions together, it takes the
time of im2col divided by 3.9, 3.7, 3.6, 3.2 for 64, 128, 256, 512 channels (ResNet-18 at batch 128)
and by 2.7, 2.6, 3.2 for 16, 32, 64 (ResNet-20); at the limits below the two are level.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from .im2col import Pair, output_size
from .isa import ISA

__all__ = ["choose_convolution"]

WEIGHTS = 48  # transforming the weights costs as much as so many tiles
CHANNELS = 3  # with fewer inputs or outputs, the transforms cost more than the products save


def choose_convolution(
    x: tuple[int, ...],
    w: tuple[int, ...],
    stride: Pair,
    padding: Pair,
    dilation: Pair,
    groups: int,
    dtype: Any,
) -> str:
    """The algorithm ("winograd", "im2col" or "reference") for images of shape x (n, h, w, c) and
    weights of shape w (r, s, c/groups, k), and for both gradients.

    >>> ones = (1, 1)
    >>> choose_convolution((8, 32, 32, 3), (7, 7, 3, 64), ones, ones, ones, 1, "float32")
    'im2col'
    """
    dtype = np.dtype(dtype)
    if groups != 1 or dtype.kind != "f":
        return "reference"
    n, (r, s, c, k) = x[0], w
    if (r, s) != (3, 3) or stride != (1, 1) or dilation != (1, 1) or max(padding) > 2:
        return "im2col"
    if dtype != np.float32 or not ISA.width or min(c, k) < CHANNELS:
        return "im2col"
    p, q = (output_size(size, 3, 1, pad) for size, pad in zip(x[1:3], padding))
    tiles = n * -(-p // 4) * -(-q // 4)
    return "winograd" if 9 * n * p * q > 36 * (tiles + WEIGHTS) else "im2col"
