"""Which algorithm serves which convolution on the CPU: the one place that decides.

    winograd    3x3, stride 1, one group: a fourth of the multiplications (`winograd`)
    polyphase   3x3, stride 2, padding 1, one group: the same, two thirds of them (`winograd`)
    direct      anything: columns in the cache, times packed weights (`direct`)
    depthwise   as many groups as inputs and outputs: plain loops (`depthwise`)
    im2col      the columns, by products of a BLAS (`conv`): float64, few pixels, unknown CPUs
    reference   mixed dtypes: array code (`conv`)

Winograd computes whole tiles, 4x4 outputs with 36 products or 2x2 with 25, and transforms the
weights first, which costs as much as some 48 tiles. So it needs images that fill their tiles and
enough of them. Packing weights pays with enough pixels, too. With bf16 operands, which Winograd
does not have, the direct products of a stride of 2 are faster.

Measured on one thread of an AMD EPYC (Zen 4), a convolution with both gradients takes the time of
im2col divided by

    3x3, 64 / 128 / 256 / 512 channels (ResNet-18 at batch 128)       3.5 / 3.3 / 3.7 / 3.5
    3x3, 16 / 32 / 64 channels (ResNet-20)                            2.9 / 2.9 / 2.7
    3x3 with stride 2, from 64 / 128 / 256 channels, direct           1.2 / 1.15 / 1.15
    1x1 of ResNet-50                                                  0.95 to 1.25
    3x3 / 7x7 with stride 2, from 3 channels                          1.5 / 1.7

and about as long at the limits below. The polyphase form takes 0.7 to 0.85 of the direct time.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np

from .bf16 import uses_bf16
from .im2col import Pair, output_size
from .isa import ISA

__all__ = ["choose_convolution"]

PIXELS = 256  # outputs below which packing the weights costs more than it saves
WEIGHTS = 48  # transforming the weights costs as much as so many tiles
CHANNELS = 3  # with fewer inputs or outputs, the transforms cost more than the products save …
MOST_OUTPUTS = 16  # … and with so many outputs for each input
STRIDED_CHANNELS = 16  # the same for the polyphase form, which saves less


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
    return _choose(x, w, stride, padding, dilation, groups, dtype, uses_bf16(dtype))


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
    channels_fit = min(c, k) >= CHANNELS and k < MOST_OUTPUTS * c
    if (r, s, *dilation, groups) == (3, 3, 1, 1, 1) and channels_fit:
        products = 9 * n * p * q
        tiles = n * -(-p // 4) * -(-q // 4)
        if stride == (1, 1) and max(padding) <= 2 and products > 36 * (tiles + WEIGHTS):
            return "winograd"
        tiles = n * -(-p // 2) * -(-q // 2)
        polyphase = (*stride, *padding) == (2, 2, 1, 1) and min(c, k) >= STRIDED_CHANNELS
        if polyphase and not bf16 and products > 25 * (tiles + WEIGHTS):
            return "polyphase"
    return "direct" if n * p * q >= PIXELS else "im2col"
