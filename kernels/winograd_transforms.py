"""The transforms of Winograd's schemes as vector functions, whose instructions are made from the
matrices.

Each body takes a scheme, which the compiled function chooses by its number, and the channels of one
vector, `count` of them where a tile has fewer. A `table` lists the addresses of a tile's pixels,
`ahead` those of the tile that comes next, `plane` is the distance of the planes.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from itertools import cycle
from typing import Any

import numpy as np
from llvmlite import ir

from .finish import finish_vector
from .simd import INT64, LINE, Lanes
from .winograd_schemes import SCHEMES, Scheme

__all__ = [
    "added_line",
    "biased_line",
    "for_each_scheme",
    "gradient_tile",
    "image_tile",
    "list_inputs",
    "list_outputs",
    "output_line",
    "output_tile",
    "summed_line",
    "transform",
    "turn_square",
    "weight_gradient_tile",
    "weight_tile",
]


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
        if not pair or not row[1::2].any():
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


def for_each_scheme(body: Callable[..., None]) -> Callable[..., None]:
    """The body of a vector function of a scheme's number, from that for a scheme.

    (A function compiled for each scheme would be as fast, and take three times as long to compile.)
    """

    @wraps(body)  # with the names of the parameters
    def choose(lanes: Lanes, number: Any, *arguments: Any) -> None:
        builder = lanes.builder
        done = builder.append_basic_block("done")
        choice = builder.switch(number, done)
        for scheme in SCHEMES:
            block = builder.append_basic_block("scheme")
            choice.add_case(INT64(scheme.number), block)
            builder.position_at_end(block)
            body(lanes, scheme, *arguments)
            builder.branch(done)
        builder.position_at_end(done)

    return choose


@for_each_scheme
def image_tile(lanes, scheme, table, ahead, offset, to, plane, count=None):
    """Bᵀ d B of the pixels listed in `table`."""
    pixels, side = scheme.image**2, scheme.image
    for i, place in enumerate(_listed(lanes, ahead, pixels, offset)):
        if i % side >= side - scheme.step:  # the columns before are the last of this tile
            lanes.prefetch(place)
    places = _listed(lanes, table, pixels, offset)
    tile = transform(lanes, scheme.b_t, _load_tile(lanes, places, lanes.first(count)))
    _store_tile(lanes, tile, lanes.steps(to, plane, scheme.planes), None)


@for_each_scheme
def weight_tile(lanes, scheme, w, tap, to, plane, count=None):
    """G g Gᵀ of 9 taps at distance `tap`."""
    tile = _load_tile(lanes, lanes.steps(w, tap, 9), lanes.first(count))
    tile = transform(lanes, scheme.g, tile)
    _store_tile(lanes, tile, lanes.steps(to, plane, scheme.planes), None)


@for_each_scheme
def output_tile(lanes, scheme, m, plane, table, offset, count=None):
    """Aᵀ m A, to the outputs listed in `table`."""
    for vector, place in _outputs(lanes, scheme, m, plane, table, offset):
        lanes.store(vector, place, lanes.first(count))


@for_each_scheme
def output_line(lanes, scheme, m, plane, table, ahead, offset):
    """The same for the vectors of a whole cache line, past the caches if the function `streams`."""
    for vector, place, _ in _lines(lanes, scheme, m, plane, table, ahead, offset):
        lanes.put_out(vector, place)


@for_each_scheme
def biased_line(lanes, scheme, m, plane, table, ahead, offset, relu, bias):
    """The same plus the vectors at the address `bias`, with ReLU if `relu` is not 0."""
    for vector, place, part in _lines(lanes, scheme, m, plane, table, ahead, offset):
        lanes.put_out(finish_vector(lanes, vector, relu, lanes.offset(bias, part)), place)


@for_each_scheme
def added_line(lanes, scheme, m, plane, table, ahead, offset, relu, bias, residual):
    """The same plus the residual, which is `residual` bytes from the output."""
    for place in _listed(lanes, ahead, scheme.output**2, offset):
        lanes.prefetch(lanes.offset(place, residual))
    for vector, place, part in _lines(lanes, scheme, m, plane, table, ahead, offset):
        bias_here, added = lanes.offset(bias, part), lanes.offset(place, residual)
        lanes.put_out(finish_vector(lanes, vector, relu, bias_here, added), place)


@for_each_scheme
def summed_line(lanes, scheme, m, plane, table, ahead, offset, sums, row, new):
    """The outputs as they are, and sums for their moments, rows `row` bytes apart: a start, and of
    what the outputs of several tiles differ from it the sum and the sum of squares. With `new`, not
    0, they begin, and the start is the mean of the tile.
    """
    begins = lanes.builder.icmp_signed("!=", new, INT64(0))
    found: dict[int, list[Any]] = {}
    for vector, place, part in _lines(lanes, scheme, m, plane, table, ahead, offset):
        lanes.put_out(vector, place)
        found.setdefault(part, []).append(vector)

    def so_far(place: Any, first: Any) -> Any:
        return lanes.builder.select(begins, first, lanes.load(place))

    for part, vectors in found.items():
        to_start, to_sum, to_squares = lanes.steps(lanes.offset(sums, part), row, 3)
        mean = lanes.multiply(lanes.constant(1 / len(vectors)), lanes.sum(vectors))
        start, zero = so_far(to_start, mean), lanes.constant(0.0)
        differences = [lanes.subtract(vector, start) for vector in vectors]
        squares = [lanes.multiply(d, d) for d in differences]
        lanes.store(start, to_start)
        lanes.store(lanes.add(so_far(to_sum, zero), lanes.sum(differences)), to_sum)
        lanes.store(lanes.add(so_far(to_squares, zero), lanes.sum(squares)), to_squares)


def _lines(
    lanes: Lanes, scheme: Scheme, m: Any, plane: Any, table: Any, ahead: Any, offset: Any
) -> list[tuple[Any, Any, int]]:
    """(vector, its place, bytes from the line's beginning), line by line: a line that is streamed
    in one go need not be read before. Otherwise the next tile's lines are fetched.
    """
    if not lanes.streams:
        for place in _listed(lanes, ahead, scheme.output**2, offset):
            lanes.prefetch(place)
    vectors = []
    for part in range(0, LINE, 4 * lanes.width):
        here = lanes.offset(m, part), plane, table, lanes.offset(offset, part)
        vectors.append([(*output, part) for output in _outputs(lanes, scheme, *here)])
    return [output for line in zip(*vectors) for output in line]


def _outputs(lanes: Lanes, scheme: Scheme, m: Any, plane: Any, table: Any, offset: Any) -> Any:
    tile = _load_tile(lanes, lanes.steps(m, plane, scheme.planes), None)
    vectors = [v for row in transform(lanes, scheme.a_t, tile) for v in row]
    return zip(vectors, _listed(lanes, table, len(vectors), offset))


def turn_square(lanes: Lanes, square: Any, row: Any, to: Any) -> None:
    """to = the transpose of as many rows, `row` bytes apart, as a vector has lanes.

    Step by step, the upper right and lower left quarters change places: of the whole, of each
    quarter, and so on.
    """
    lane, half = list(range(lanes.width)), lanes.width // 2
    vectors = [lanes.load(place) for place in lanes.steps(square, row, lanes.width)]
    while half:
        for i in (i for i in lane if not i & half):
            upper, lower = vectors[i], vectors[i + half]
            left = [j + lanes.width - half if j & half else j for j in lane]
            right = [j + lanes.width if j & half else j + half for j in lane]
            vectors[i] = lanes.pick(upper, lower, left)
            vectors[i + half] = lanes.pick(upper, lower, right)
        half //= 2
    for i, vector in enumerate(vectors):
        lanes.store(vector, lanes.offset(to, 4 * lanes.width * i))


@for_each_scheme
def gradient_tile(lanes, scheme, table, ahead, offset, to, plane, count=None):
    """A dy Aᵀ of the pixels listed in `table`."""
    pixels = scheme.output**2
    for place in _listed(lanes, ahead, pixels, offset):
        lanes.prefetch(place)
    places = _listed(lanes, table, pixels, offset)
    tile = transform(lanes, scheme.a_t.T, _load_tile(lanes, places, lanes.first(count)))
    _store_tile(lanes, tile, lanes.steps(to, plane, scheme.planes), None)


@for_each_scheme
def weight_gradient_tile(lanes, scheme, du, plane, dw, tap, count=None):
    """Gᵀ du G, to 9 taps at distance `tap`."""
    tile = _load_tile(lanes, lanes.steps(du, plane, scheme.planes), None)
    tile = transform(lanes, scheme.g.T, tile)
    _store_tile(lanes, tile, lanes.steps(dw, tap, 9), lanes.first(count))


@for_each_scheme
def list_inputs(lanes, scheme, table, image, i, j, top, left, h, w, pixel, outside):
    """Fill a table with the addresses of the pixels of tile (i, j) of an image (h, w), `pixel`
    bytes each, those outside the image with another address.
    """
    step = INT64(scheme.step)
    top = lanes.builder.sub(lanes.builder.mul(step, i), top)
    left = lanes.builder.sub(lanes.builder.mul(step, j), left)
    _list_pixels(lanes, scheme.image, table, image, top, left, h, w, pixel, outside)


@for_each_scheme
def list_outputs(lanes, scheme, table, image, i, j, h, w, pixel, outside):
    """The same of a tile's outputs."""
    top, left = (lanes.builder.mul(INT64(scheme.output), place) for place in (i, j))
    _list_pixels(lanes, scheme.output, table, image, top, left, h, w, pixel, outside)


def _list_pixels(
    lanes: Lanes,
    size: int,
    table: Any,
    image: Any,
    top: Any,
    left: Any,
    h: Any,
    w: Any,
    pixel: Any,
    outside: Any,
) -> None:
    """A row of size x size addresses at a time: the obvious loop takes as long as the transform of
    a vector of channels.
    """
    builder, numbers = lanes.builder, ir.VectorType(INT64, size)

    def every(number: Any) -> Any:
        return lanes.every_lane(number, numbers)

    columns = builder.add(every(left), ir.Constant(numbers, list(range(size))))
    within = builder.icmp_unsigned("<", columns, every(w))  # as unsigned, -1 is large
    nowhere = ir.Constant(within.type, [0] * size)
    along = builder.mul(columns, every(pixel))
    for i in range(size):
        row = builder.add(top, INT64(i))
        start = lanes.offset(image, builder.mul(builder.mul(row, w), pixel))
        inside = builder.select(builder.icmp_unsigned("<", row, h), within, nowhere)
        places = builder.select(inside, builder.add(every(start), along), every(outside))
        to = lanes.offset(table, 8 * size * i)
        builder.store(places, builder.inttoptr(to, numbers.as_pointer()), align=8)
