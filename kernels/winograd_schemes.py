"""Winograd's minimal filtering: 3x3 convolutions with a fourth or two thirds of the products.

A 3x3 correlation of a square tile d of the image with the window g gives a tile of outputs y:

    y = Aᵀ [(G g Gᵀ) ⊙ (Bᵀ d B)] A

With c channels, ⊙ becomes one matrix product (tiles, c) @ (c, k) for each place in the transformed
tile, its plane. There are three schemes, each with its matrices A, B and G:

    DENSE     stride 1            6x6 pixels -> 4x4 outputs    36 products instead of 144
    STRIDED   stride 2            5x5 pixels -> 2x2 outputs    25 products instead of 36
    SPREAD    its input gradient  3x3 pixels -> 4x4 outputs    25 products instead of 36

The input gradient of DENSE is the same correlation of the output's gradient with rotated windows.
Weight gradients are the adjoint, with the transforms transposed: dg = Gᵀ [(A dy Aᵀ) ⊙ (Bᵀ d B)] G,
summed over tiles.

Stride 2 takes even and odd pixels apart (the polyphase form). Along one axis, the even ones meet
the outer taps, a correlation with stride 1 of which two outputs take 3 products, and the odd ones
the middle tap, one product each:

    y[i] = (d[2i] g[0] + d[2i + 2] g[2]) + d[2i + 1] g[1]

In the input gradient every second pixel comes from the outer taps, the others from the middle one.

The transforms interpolate polynomials at some points and infinity. DENSE has 0, ±3/4, ±3/2: with
these the float32 error is about half of that with the usual 0, ±1, ±2, and their squares are exact.

Source: Lavin and Gray, "Fast algorithms for convolutional neural networks", arXiv:1509.09308; the
matrices from points as in Barabasz et al., "Error analysis and improving the accuracy of Winograd
convolution for deep neural networks", arXiv:1803.10986.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

__all__ = ["DENSE", "SCHEMES", "SPREAD", "STRIDED", "Scheme", "convolution"]


class Scheme(NamedTuple):
    """The transforms of a tile; `number` is the scheme's place in SCHEMES."""

    number: int
    step: int  # pixels of the image from one tile to the next
    a_t: np.ndarray  # (outputs of a tile, planes) along one axis
    g: np.ndarray  # (planes, 3)
    b_t: np.ndarray  # (planes, pixels of a tile)

    @property
    def image(self) -> int:
        """Pixels along a side of a tile of the image."""
        return self.b_t.shape[1]

    @property
    def output(self) -> int:
        """Outputs along a side of a tile."""
        return self.a_t.shape[0]

    @property
    def planes(self) -> int:
        """Numbers of a transformed tile."""
        return len(self.g) ** 2


def _matrices(points: tuple[float, ...], taps: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Aᵀ, G (·, taps) and Bᵀ of a correlation with stride 1, for some points and infinity."""
    size = len(points) + 1
    outputs = size - taps + 1
    others = [[q for q in points if q != p] for p in points]
    # rows of Aᵀ and columns of G: the powers of the points; infinity keeps the highest power
    a_t = [[p**i for p in points] + [float(i == outputs - 1)] for i in range(outputs)]
    scale = [float(np.prod([p - q for q in rest])) for p, rest in zip(points, others)]
    g = [[p**i / s for i in range(taps)] for p, s in zip(points, scale)]
    g.append([float(i == taps - 1) for i in range(taps)])
    # rows of Bᵀ: coefficients, lowest first, of the polynomial that vanishes at the other points
    b_t = np.zeros((size, size))
    for row, zeros in enumerate([*others, list(points)]):
        b_t[row, : len(zeros) + 1] = np.poly(zeros)[::-1]
    return np.array(a_t), np.array(g), b_t


def _dense(points: tuple[float, ...]) -> Scheme:
    a_t, g, b_t = _matrices(points, 3)
    return Scheme(0, len(a_t), a_t, g, b_t)


def _outer_and_middle(g: np.ndarray, outputs: int) -> np.ndarray:
    """G for the outer taps, from that of 2 taps, and below it the middle tap for each output."""
    outer = np.insert(g, 1, 0, axis=1)
    return np.concatenate([outer, np.tile([0.0, 1.0, 0.0], (outputs, 1))])


def _strided(points: tuple[float, ...]) -> Scheme:
    a_t, g, b_t = _matrices(points, 2)
    outputs, size = a_t.shape
    pixels = np.zeros((size + outputs, size + outputs))
    pixels[:size, ::2] = b_t  # the even ones
    pixels[size:, 1::2] = np.eye(outputs)  # the odd ones
    a_t = np.concatenate([a_t, np.eye(outputs)], axis=1)
    return Scheme(1, 2 * outputs, a_t, _outer_and_middle(g, outputs), pixels)


def _spread(points: tuple[float, ...]) -> Scheme:
    a_t, g, b_t = _matrices(points, 2)
    outputs, size = a_t.shape
    pairs = np.zeros((2 * outputs, size + outputs))
    pairs[::2, size:] = np.eye(outputs)  # below the middle tap
    pairs[1::2, :size] = a_t  # between two windows: the outer taps
    b_t = np.concatenate([b_t, np.eye(outputs, size)])
    return Scheme(2, outputs, pairs, _outer_and_middle(g, outputs), b_t)


DENSE = _dense((0.0, 0.75, -0.75, 1.5, -1.5))
STRIDED = _strided((0.0, 1.0))
SPREAD = _spread((0.0, 1.0))
SCHEMES = (DENSE, STRIDED, SPREAD)


def convolution(
    scheme: Scheme, x: Any, w: Any, padding: tuple[int, int], size: tuple[int, int]
) -> np.ndarray:
    """The algorithm in array code: x (n, h, w, c), w (3, 3, c, k) -> (n, *size, k) in x's dtype,
    from images with so many rows and columns of zeros before them.

    >>> x, w = np.ones((1, 4, 5, 2)), np.ones((3, 3, 2, 1))
    >>> convolution(DENSE, x, w, (0, 0), (2, 3))[0, :, :, 0].round(12)
    array([[18., 18., 18.],
           [18., 18., 18.]])
    """
    (n, _, _, c), k = x.shape, w.shape[3]
    rows, across = (-(-length // scheme.output) for length in size)
    a_t, g, b_t = (m.astype(x.dtype) for m in (scheme.a_t, scheme.g, scheme.b_t))
    side, step = scheme.image, scheme.step
    lengths = [step * (tiles - 1) + side for tiles in (rows, across)]
    ends = [max(length - m - s, 0) for length, m, s in zip(lengths, padding, x.shape[1:3])]
    padded = np.pad(x, ((0, 0), *zip(padding, ends), (0, 0)))
    tiles = np.stack([padded[:, i:][:, : step * rows : step] for i in range(side)], axis=2)
    tiles = np.stack(
        [tiles[:, :, :, j:][:, :, :, : step * across : step] for j in range(side)], axis=3
    )
    # tiles (n, rows, side, side, across, c): the pixels of each tile
    v = np.einsum("ai,bj,nrijtc->abnrtc", b_t, b_t, tiles).reshape(*2 * [len(b_t)], -1, c)
    u = np.einsum("ai,bj,ijck->abck", g, g, w)
    m = (v @ u).reshape(*2 * [len(b_t)], n, rows, across, k)
    y = np.einsum("ia,jb,abnrtk->nritjk", a_t, a_t, m)
    return y.reshape(n, scheme.output * rows, -1, k)[:, : size[0], : size[1]]
