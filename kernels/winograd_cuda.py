"""Winograd convolutions on the GPU: 3x3 windows at stride 1 in float32, F(4x4, 3x3).

    y = Aᵀ [(G g Gᵀ) ⊙ (Bᵀ d B)] A      with the matrices of `winograd_schemes.DENSE`

A launch transforms tiles of images and the windows, one batched product of cuBLAS does all 36
planes, and a launch transforms its sums and finishes them. dx is the same with rotated windows, of
the outputs' gradient.

On paper it pays twice. A tile of 4x4 outputs takes 36 products for each pair of channels instead of
144; and im2col writes each number of an image nine times and reads that again, where the tiles are
36 numbers for 16. The floors of the 13 layers of ResNet-18 that are 3x3 at stride 1, batch 128,
float32, in ms, by columns / by Winograd:

                       H100 SXM          A100 SXM            T4
    output, dx     7.8 / 3.2 each    23.1 / 8.0 each    68.8 / 30.6 each
    dw             7.8 / 3.2         23.1 / 8.0         68.8 / 30.6

`pays` counts the same numbers for each layer. dw keeps its columns: with three launches for each of
the three products a layer would take 13 with its BatchNorm, and 12 are what we allow. TF32 and 16
bits keep columns, too: they multiply 7 times as fast and more, so less is to be saved, and the
transforms enlarge their roundings about four times (see `bf16`).

Source: Lavin and Gray, "Fast algorithms for convolutional neural networks", arXiv:1509.09308.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from .im2col import Pair
from .launch import THREADS, Source, pixel_grid
from .memory import empty, workspace
from .precision import operand_kind
from .product import multiply
from .winograd_schemes import DENSE

__all__ = ["constants", "correlate", "pays"]

SOURCE = Source("winograd.cu")
SIDE = 4  # outputs along a side of a tile
PLANES = 36
CHANNELS = 16  # inputs and outputs at least: with fewer, most threads of a warp would idle


def constants() -> str:
    """The text of winograd.cuh: the transforms along one axis, from the matrices of the scheme."""
    parts = ["// Made by winograd_cuda.py from the matrices of winograd_schemes.DENSE.\n"]
    for name, matrix in (("pixels", DENSE.b_t), ("window", DENSE.g), ("outputs", DENSE.a_t)):
        parts.append(
            f"\n// {matrix.shape[1]} numbers to {matrix.shape[0]}.\n"
            f"__device__ __forceinline__ void transform_{name}(const float* x, float* y) {{\n"
        )
        for i, row in enumerate(matrix):
            terms = [f"{np.float32(v)!s}f * x[{j}]" for j, v in enumerate(row) if v]
            parts.append(f"  y[{i}] = {' + '.join(terms)};\n")
        parts.append("}\n")
    return "".join(parts)


def _tiles(size: Pair) -> Pair:
    return -(-size[0] // SIDE), -(-size[1] // SIDE)


def pays(
    n: int, size: Pair, c: int, k: int, window: Pair, stride: Pair, dilation: Pair, dtype: Any
) -> bool:
    """Whether a convolution with outputs (n, *size, k) and c inputs moves fewer numbers so than
    with columns, of 3x3 windows at stride 1 in float32.

    >>> ones, three = (1, 1), (3, 3)
    >>> pays(128, (56, 56), 64, 64, three, ones, ones, "float32")
    True
    >>> pays(128, (56, 56), 3, 64, three, ones, ones, "float32")
    False
    """
    if (*window, *stride, *dilation) != (3, 3, 1, 1, 1, 1) or min(c, k) < CHANNELS:
        return False
    if operand_kind() != "float32" or np.dtype(dtype) != np.float32:
        return False
    rows, across = _tiles(size)
    pixels, tiles = n * size[0] * size[1], n * rows * across
    columns = 18 * pixels * c + 9 * c * k
    return 2 * PLANES * tiles * (c + k) + 2 * PLANES * c * k + 9 * c * k < columns


def correlate(
    x: Any,
    w: Any,
    b: Any,
    residual: Any,
    *,
    padding: Pair,
    size: Pair,
    relu: bool,
    rotated: bool = False,
    room: int,
) -> Any:
    """x (n, h, w, c), w (3, 3, c, k) -> (n, *size, k) plus b (k,) and residual, then ReLU; or with
    `rotated` x (n, h, w, k) -> (n, *size, c), w turned around. Contiguous arrays; the transforms of
    as many images at a time as fit into `room` bytes.
    """
    n, (c, k) = len(x), w.shape[2:]
    seen, made = (k, c) if rotated else (c, k)  # channels of x and of y
    y, (rows, across) = empty((n, *size, made), x.dtype, like=x), _tiles(size)
    step = max(1, room // (4 * PLANES * rows * across * (c + k)))
    with workspace((PLANES, c, k), x.dtype, like=x) as windows:
        for start in range(0, n, step):
            images = slice(start, min(start + step, n))
            tiles = (images.stop - start) * rows * across
            with (
                workspace((PLANES, tiles, seen), x.dtype, like=x) as v,
                workspace((PLANES, tiles, made), x.dtype, like=x) as m,
            ):
                _transform(x[images], v, w if start == 0 else None, windows, padding, rotated, rows)
                multiply(v, windows.transpose(0, 2, 1) if rotated else windows, m)
                grid, block = pixel_grid(tiles, made)
                plus = None if residual is None else residual[images]
                SOURCE.launch(
                    *("winograd_outputs", grid, block, m, b, plus, y[images], tiles, *size, made),
                    *(rows, across, int(relu)),
                )
    return y


def _transform(
    x: Any, v: Any, w: Any, windows: Any, padding: Pair, rotated: bool, rows: int
) -> None:
    """Fill v (36, tiles, channels) from x, and `windows` from w where it is given."""
    (_, h, across, seen), tiles = x.shape, v.shape[1]
    (blocks, side), block = pixel_grid(tiles, seen)
    count = 0 if w is None else w.shape[2] * w.shape[3]
    grid = blocks - -count // (THREADS * side), side
    SOURCE.launch(
        *("winograd_inputs", grid, block, x, v, w, windows, tiles, count, blocks, h, across, seen),
        *(rows, tiles // (len(x) * rows), *padding, int(rotated)),
    )
