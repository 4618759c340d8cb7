"""Which algorithm serves which convolution on the CPU: the one place that decides.

    winograd    3x3, stride 1, one group: a fourth of the multiplications (`winograd`)
    polyphase   3x3, stride 2, padding 1, one group: the same, two thirds of them (`winograd`)
    tiled       one group, bf16 operands, CPUs with AMX: columns in the cache, times weights, by the
                matrix unit (`tiled`)
    direct      anything: columns in the cache, times packed weights (`direct`)
    depthwise   as many groups as inputs and outputs: plain loops (`depthwise`)
    im2col      the columns, by products of a BLAS (`chunked`): float64, few pixels, unknown CPUs
    reference   mixed dtypes: array code (`conv`)

Winograd computes whole tiles, 4x4 outputs with 36 products or 2x2 with 25, and transforms the
weights first, which costs as much as some 48 tiles. So it needs images that fill their tiles and
enough of them. Packing weights pays with enough pixels, too. With bf16 operands, which Winograd
does not have, the products of a stride of 2 are faster, and with AMX those of many channels.

Measured on one thread of an AMD EPYC (Zen 4), a convolution with both gradients takes the time of
im2col divided by

    3x3, 64 / 128 / 256 / 512 channels (ResNet-18 at batch 128)       3.5 / 3.3 / 3.7 / 3.5
    3x3, 16 / 32 / 64 channels (ResNet-20)                            2.9 / 2.9 / 2.7
    3x3 with stride 2, from 64 / 128 / 256 channels, direct           1.2 / 1.15 / 1.15
    1x1 of ResNet-50                                                  0.95 to 1.25
    3x3 / 7x7 with stride 2, from 3 channels                          1.5 / 1.7

and about as long at the limits below. The polyphase form takes 0.7 to 0.85 of the direct time.

With AMX (two threads of an Intel Xeon), the time of the float32 algorithm divided by that of
`tiled`, for the output and the gradients of inputs and weights:

    3x3, 64 / 128 / 256 / 512 channels           0.7 to 0.8 / 1.1 to 1.4 / 0.8 to 1.2 / 0.95 to 1.3
    3x3 with stride 2, from 64 / 128 / 256       1.7 to 2.0 / 2.1 to 2.6 / 2.7 to 3.4
    1x1 with stride 2, from 64 / 128 / 256       0.9 to 1.6 / 1.2 to 1.7 / 2.2 to 3.4
    3x3, 16 / 32 / 64 channels (ResNet-20)       0.3 to 0.5 / 0.7 to 0.8 / 0.8 to 1.0
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np

from . import amx
from .bf16 import uses_bf16
from .im2col import Pair, output_size
from .isa import ISA

__all__ = ["choose_convolution"]

PIXELS = 256  # outputs below which packing the weights costs more than it saves
WEIGHTS = 48  # transforming the weights costs as much as so many tiles
CHANNELS = 3  # with fewer inputs or outputs, the transforms cost more than the products save …
MOST_OUTPUTS = 16  # … and with so many outputs for each input
STRIDED_CHANNELS = 16  # the same for the polyphase form, which saves less
TILED_CHANNELS = 16  # inputs and outputs with which tiles are full enough …
MANY_CHANNELS = 128  # … and with which they beat Winograd's fourth of the multiplications


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
    bf16 = uses_bf16(dtype)
    return _choose(x, w, stride, padding, dilation, groups, dtype, bf16, bf16 and amx.available())


@lru_cache(maxsize=1024)
def _choose(
    x: tuple[int, ...],
    w: tuple[int, ...],
    stride: Pair,
    padding: Pair,
    dilation: Pair,
    groups: int,
    dtype: np.dtype,
    bf16: bool,
    tiles: bool,
) -> str:
    if dtype.kind != "f":
        return "reference"
    if groups == x[3] == w[3]:
        return "depthwise"
    if dtype != np.float32 or not ISA.width:
        return "im2col"
    n, (r, s, c, k) = x[0], w
    p = output_size(x[1], r, stride[0], padding[0], dilation[0])
    q = output_size(x[2], s, stride[1], padding[1], dilation[1])
    few_pixels = n * p * q < PIXELS
    tiles = tiles and groups == 1 and min(c, k) >= TILED_CHANNELS and not few_pixels
    channels_fit = min(c, k) >= CHANNELS and k < MOST_OUTPUTS * c
    if (r, s, *dilation, groups) == (3, 3, 1, 1, 1) and channels_fit:
        products = 9 * n * p * q
        fours = n * -(-p // 4) * -(-q // 4)
        serves = stride == (1, 1) and max(padding) <= 2 and products > 36 * (fours + WEIGHTS)
        if serves and not (tiles and min(c, k) >= MANY_CHANNELS):
            return "winograd"
        twos = n * -(-p // 2) * -(-q // 2)
        polyphase = (*stride, *padding) == (2, 2, 1, 1) and min(c, k) >= STRIDED_CHANNELS
        if polyphase and not bf16 and products > 25 * (twos + WEIGHTS):
            return "polyphase"
    if tiles:
        return "tiled"
    return "im2col" if few_pixels else "direct"
