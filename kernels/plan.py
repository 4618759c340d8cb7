"""Which algorithm serves which convolution on the CPU: the one place that decides.

    winograd    3x3, stride 1, one group: a fourth of the multiplications (`winograd`)
    direct      anything: columns in the cache, times packed weights (`direct`)
    depthwise   as many groups as inputs and outputs: plain loops (`depthwise`)
    im2col      the columns, by products of a BLAS (`conv`): float64, few pixels, unknown CPUs
    reference   mixed dtypes: array code (`conv`)

Winograd computes whole 4x4 tiles of outputs with 36 products each, and transforms the weights
first, which costs as much as some 48 tiles. So it needs images that fill their tiles and enough of
them. Packing weights pays with enough pixels, too.

3x3 windows with stride 2 have a Winograd form, too: even and odd pixels apart, 25 products instead
of 36. Tried on the forward convolutions of ResNet-18 and ResNet-50 alone, it took 0.72 to 0.77 of
the direct time on two threads. It is not used: with both gradients it needs transforms of its own.

Measured on one thread of an AMD EPYC (Zen 4), a convolution with both gradients takes the time of
im2col divided by

    3x3, 64 / 128 / 256 / 512 channels (ResNet-18 at batch 128)       3.5 / 3.3 / 3.7 / 3.5
    3x3, 16 / 32 / 64 channels (ResNet-20)                            2.9 / 2.9 / 2.7
    3x3 with stride 2, from 64 / 128 / 256 channels                   1.2 / 1.15 / 1.15
    1x1 of ResNet-50                                                  0.95 to 1.25
    3x3 / 7x7 with stride 2, from 3 channels                          1.5 / 1.7

and about as long at the limits below.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from .im2col import Pair, output_size
from .isa import ISA

__all__ = ["choose_convolution"]

PIXELS = 256  # outputs below which packing the weights costs more than it saves
WEIGHTS = 48  # transforming the weights costs as much as so many tiles
CHANNELS = 3  # with fewer inputs or outputs, the transforms cost more than the products save …
MOST_OUTPUTS = 16  # … and with so many outputs for each input


def choose_convolution(
    x: tuple[int, ...],
    w: tuple[int, ...],
    stride: Pair,
    padding: Pair,
    dilation: Pair,
    groups: int,
    dtype: Any,
) -> str:
    """The algorithm (one of the names above) for images of shape x (n, h, w, c) and weights of
    shape w (r, s, c/groups, k), and for both gradients.

    >>> ones = (1, 1)
    >>> choose_convolution((8, 32, 32, 3), (7, 7, 3, 64), ones, ones, ones, 1, "float64")
    'im2col'
    """
    dtype = np.dtype(dtype)
    if dtype.kind != "f":
        return "reference"
    if groups == x[3] == w[3]:
        return "depthwise"
    if dtype != np.float32 or not ISA.width:
        return "im2col"
    n, (r, s, c, k) = x[0], w
    p = output_size(x[1], r, stride[0], padding[0], dilation[0])
    q = output_size(x[2], s, stride[1], padding[1], dilation[1])
    if (r, s, *stride, *dilation, groups) == (3, 3, 1, 1, 1, 1, 1) and max(padding) <= 2:
        tiles = n * -(-p // 4) * -(-q // 4)
        channels_fit = min(c, k) >= CHANNELS and k < MOST_OUTPUTS * c
        if channels_fit and 9 * n * p * q > 36 * (tiles + WEIGHTS):
            return "winograd"
    return "direct" if n * p * q >= PIXELS else "im2col"
