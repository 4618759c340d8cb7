"""Winograd's minimal filtering F(4x4, 3x3): 36 multiplications for 16 outputs instead of 144.

A 3x3 correlation of a 6x6 tile d of the image with the window g gives 4x4 outputs y:

    y = Aᵀ [(G g Gᵀ) ⊙ (Bᵀ d B)] A

With c channels, ⊙ becomes 36 matrix products (tiles, c) @ (c, k), one for each place in the tile.
The input gradient is the same correlation of the output's gradient with rotated windows; the weight
gradient is the adjoint, with the transforms transposed: dg = Gᵀ [(A dy Aᵀ) ⊙ (Bᵀ d B)] G, summed
over tiles.

Here: the matrices, the algorithm as plain array code, and the transforms as vector functions whose
instructions are made from the matrices.

The transforms interpolate polynomials at the points 0, ±3/4, ±3/2 and infinity: with these the
float32 error is about half of that with the usual 0, ±1, ±2, and their squares are exact.

Source: Lavin and Gray, "Fast algorithms for convolutional neural networks", arXiv:1509.09308; the
matrices from points as in Barabasz et al., "Error analysis and improving the accuracy of Winograd
convolution for deep neural networks", arXiv:1803.10986.
"""

from __future__ import annotations

from itertools import cycle
from typing import Any

import numpy as np

from .finish import finish_vector
from .simd import Lanes

__all__ = [
    "AT",
    "BT",
    "POINTS",
    "G",
    "added_line",
    "biased_line",
    "convolution",
    "gradient_tile",
    "image_tile",
    "output_line",
    "output_tile",
    "weight_gradient_tile",
    "weight_tile",
]

POINTS = (0.0, 0.75, -0.75, 1.5, -1.5)  # and infinity


def _matrices(points: tuple[float, ...]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Aᵀ (4, 6), G (6, 3) and Bᵀ (6, 6) for five points and infinity."""
    others = [[q for q in points if q != p] for p in points]
    # rows of Aᵀ and columns of G: the powers of the points; infinity keeps the highest power
    a_t = np.array([[p**i for p in points] + [float(i == 3)] for i in range(4)])
    scale = [np.prod([p - q for q in rest]) for p, rest in zip(points, others)]
    g = np.array([[p**i / s for i in range(3)] for p, s in zip(points, scale)] + [[0.0, 0.0, 1.0]])
    # rows of Bᵀ: coefficients, lowest first, of the polynomial that vanishes at the other points
    b_t = np.zeros((6, 6))
    for row, zeros in enumerate([*others, list(points)]):
        b_t[row, : len(zeros) + 1] = np.poly(zeros)[::-1]
    return a_t, g, b_t


AT, G, BT = _matrices(POINTS)


def convolution(x: Any, w: Any, padding: tuple[int, int]) -> np.ndarray:
    """The algorithm in array code: x (n, h, w, c), w (3, 3, c, k) -> (n, p, q, k) in x's dtype.

    >>> x, w = np.ones((1, 4, 5, 2)), np.ones((3, 3, 2, 1))
    >>> convolution(x, w, (0, 0))[0, :, :, 0].round(12)
    array([[18., 18., 18.],
           [18., 18., 18.]])
    """
    (n, _, _, c), k, (ph, pw) = x.shape, w.shape[3], padding
    p, q = x.shape[1] + 2 * ph - 2, x.shape[2] + 2 * pw - 2
    rows, across = -(-p // 4), -(-q // 4)
    a_t, g, b_t = (m.astype(x.dtype) for m in (AT, G, BT))
    margins = [(m, 4 * t + 2 - m - s) for m, t, s in zip(padding, (rows, across), x.shape[1:3])]
    padded = np.pad(x, ((0, 0), *((m, max(end, 0)) for m, end in margins), (0, 0)))
    tiles = np.stack([padded[:, i : i + 4 * rows : 4] for i in range(6)], axis=2)
    tiles = np.stack([tiles[:, :, :, j : j + 4 * across : 4] for j in range(6)], axis=3)
    # tiles (n, rows, 6, 6, across, c): the 6x6 pixels of each tile
    v = np.einsum("ai,bj,nrijtc->abnrtc", b_t, b_t, tiles).reshape(6, 6, -1, c)
    u = np.einsum("ai,bj,ijck->abck", g, g, w)
    m = (v @ u).reshape(6, 6, n, rows, across, k)
    y = np.einsum("ia,jb,abnrtk->nritjk", a_t, a_t, m)
    return y.reshape(n, 4 * rows, 4 * across, k)[:, :p, :q]


# -- the same transforms as instructions


def _combine(lanes: Lanes, coefficients: Any, vectors: list[Any]) -> Any:
    """The sum of coefficient · vector, without multiplying by 0 or 1."""
    terms = [(float(f), v) for f, v in zip(coefficients, vectors) if f != 0]
    terms.sort(key=lambda term: term[0] != 1)  # begin with a term that needs no product
    (factor, vector), *more = terms
    total = vector if factor == 1 else lanes.multiply(lanes.constant(factor), vector)
    for factor, vector in more:
        if factor == 1:
            total = lanes.add(total, vector)
        else:
            total = lanes.multiply_add(lanes.constant(factor), vector, total)
    return total


def _alternating(values: np.ndarray) -> np.ndarray:
    return values * np.resize([1.0, -1.0], len(values))


def _by_row_pairs(lanes: Lanes, matrix: np.ndarray, vectors: list[Any]) -> list[Any]:
    """matrix @ vectors, where the rows for the points p and -p agree in even columns and differ in
    the sign of odd ones: the two are even + odd and even - odd.
    """
    results: list[Any] = [None] * len(matrix)
    for i, row in enumerate(matrix):
        if results[i] is not None:
            continue
        pair = [j for j in range(i + 1, len(matrix)) if (matrix[j] == _alternating(row)).all()]
        if not pair:
            results[i] = _combine(lanes, row, vectors)
            continue
        even = _combine(lanes, row[::2], vectors[::2])
        # odd · scale, with a scale that leaves exact factors
        scale = next(
            s for s in row[1::2] if s and (np.float32(row[1::2] / s) == row[1::2] / s).all()
        )
        odd = _combine(lanes, row[1::2] / scale, vectors[1::2])
        results[i] = lanes.multiply_add(lanes.constant(scale), odd, even)
        results[pair[0]] = lanes.multiply_add(lanes.constant(-scale), odd, even)
    return results


def _by_column_pairs(lanes: Lanes, matrix: np.ndarray, vectors: list[Any]) -> list[Any]:
    """matrix @ vectors, where the same holds of columns: even rows need the sum of the two vectors
    and odd rows their difference.
    """
    even, odd, left = [], [], matrix.T.copy()
    for i, column in enumerate(matrix.T):
        if not left[i].any():
            continue  # the second of a pair
        pair = [j for j in range(i + 1, len(left)) if (left[j] == _alternating(column)).all()]
        if pair:
            left[pair[0]] = 0
            even.append((column, lanes.add(vectors[i], vectors[pair[0]])))
            odd.append((column, lanes.subtract(vectors[i], vectors[pair[0]])))
        else:
            even.append((column, vectors[i]))
            odd.append((column, vectors[i]))
    return [
        _combine(lanes, [column[i] for column, _ in terms], [vector for _, vector in terms])
        for i, terms in zip(range(len(matrix)), cycle((even, odd)))
    ]


def transform(lanes: Lanes, matrix: np.ndarray, tile: list[list[Any]]) -> list[list[Any]]:
    """matrix @ tile @ matrixᵀ, for a square tile of vectors."""
    apply = _by_row_pairs if matrix.shape[0] >= matrix.shape[1] else _by_column_pairs
    columns = [apply(lanes, matrix, list(column)) for column in zip(*tile)]
    return [apply(lanes, matrix, list(row)) for row in zip(*columns)]


def _load_tile(lanes: Lanes, places: list[Any], mask: Any) -> list[list[Any]]:
    size = round(len(places) ** 0.5)
    vectors = [lanes.load(place, mask) for place in places]
    return [vectors[size * i : size * (i + 1)] for i in range(size)]


def _store_tile(lanes: Lanes, tile: list[list[Any]], places: list[Any], mask: Any) -> None:
    for vector, place in zip((v for row in tile for v in row), places):
        lanes.store(vector, place, mask)


def _listed(lanes: Lanes, table: Any, count: int, offset: Any) -> list[Any]:
    return [lanes.offset(lanes.address(table, i), offset) for i in range(count)]


# Each takes the channels of one vector; `count` of them where a tile has fewer. A `table` lists the
# addresses of a tile's pixels, `ahead` those of the tile that comes next, `plane` is the distance
# of the 36 planes.


def image_tile(lanes, table, ahead, offset, to, plane, count=None):
    """Bᵀ d B of 36 pixels listed in `table`."""
    for i, place in enumerate(_listed(lanes, ahead, 36, offset)):
        if i % 6 >= 2:  # the first two columns are the last of this tile
            lanes.prefetch(place)
    pixels = _listed(lanes, table, 36, offset)
    tile = transform(lanes, BT, _load_tile(lanes, pixels, lanes.first(count)))
    _store_tile(lanes, tile, lanes.steps(to, plane, 36), None)


def weight_tile(lanes, w, tap, to, plane, count=None):
    """G g Gᵀ of 9 taps at distance `tap`."""
    tile = _load_tile(lanes, lanes.steps(w, tap, 9), lanes.first(count))
    _store_tile(lanes, transform(lanes, G, tile), lanes.steps(to, plane, 36), None)


def output_tile(lanes, m, plane, table, offset, count=None):
    """Aᵀ m A, to the 16 pixels listed in `table`."""
    tile = transform(lanes, AT, _load_tile(lanes, lanes.steps(m, plane, 36), None))
    _store_tile(lanes, tile, _listed(lanes, table, 16, offset), lanes.first(count))


def output_line(lanes, m, plane, table, offset):
    """The same, past the caches: a vector must be a cache line."""
    for vector, place in _outputs(lanes, m, plane, table, offset):
        lanes.stream(vector, place)


def biased_line(lanes, m, plane, table, offset, relu, bias):
    """The same plus the vector at the address `bias`, with ReLU if `relu` is not 0."""
    for vector, place in _outputs(lanes, m, plane, table, offset):
        lanes.stream(finish_vector(lanes, vector, relu, bias), place)


def added_line(lanes, m, plane, table, offset, relu, bias, residual):
    """The same plus the residual, which is `residual` bytes from the output."""
    for vector, place in _outputs(lanes, m, plane, table, offset):
        added = lanes.offset(place, residual)
        lanes.stream(finish_vector(lanes, vector, relu, bias, added), place)


def _outputs(lanes: Lanes, m: Any, plane: Any, table: Any, offset: Any) -> Any:
    tile = transform(lanes, AT, _load_tile(lanes, lanes.steps(m, plane, 36), None))
    return zip((v for row in tile for v in row), _listed(lanes, table, 16, offset))


def gradient_tile(lanes, table, ahead, offset, to, plane, count=None):
    """A dy Aᵀ of 16 pixels listed in `table`."""
    for place in _listed(lanes, ahead, 16, offset):
        lanes.prefetch(place)
    pixels = _listed(lanes, table, 16, offset)
    tile = transform(lanes, AT.T, _load_tile(lanes, pixels, lanes.first(count)))
    _store_tile(lanes, tile, lanes.steps(to, plane, 36), None)


def weight_gradient_tile(lanes, du, plane, dw, tap, count=None):
    """Gᵀ du G, to 9 taps at distance `tap`."""
    tile = transform(lanes, G.T, _load_tile(lanes, lanes.steps(du, plane, 36), None))
    _store_tile(lanes, tile, lanes.steps(dw, tap, 9), lanes.first(count))
