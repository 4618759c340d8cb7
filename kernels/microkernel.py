"""The matrix product at the heart of a convolution: c = a @ b or c += a @ b, a tile at a time.

A tile of c, for example 6 rows by 4 vectors, stays in registers while the loop goes down the depth:
each step loads one row of b (4 vectors), broadcasts one number from each of 6 rows of a, and does
24 fused multiply-adds. Every number loaded is used 4 to 6 times, so that the arithmetic units, not
the loads, are the limit: with operands in the cache, 85 to 95 % of the CPU's peak.

Operands are addresses with distances in bytes, because they are parts of larger scratch arrays:

    a   row i, step l at  a + i·a_row + l·a_step      any layout, also transposed
    b   step l        at  b + l·b_row                 `vectors` vectors side by side
    c   row i         at  c + i·c_row                 likewise

After DEPTH steps a tile is added to c and starts again from zero: rounding errors grow with the
length of a sum, and sums of sums are shorter.

The caller pads: c has a multiple of the tile's rows and whole vectors as columns, and a may be read
as far. Rows and columns of the padding are computed from whatever is there and mean nothing.

Source: Goto and van de Geijn, "Anatomy of high-performance matrix multiplication", 2008.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numba
from llvmlite import ir
from numba.extending import register_jitable

from .isa import ISA
from .simd import INT64, Lanes, vector_function

__all__ = ["DEPTH", "make_product", "make_tile", "round_up", "row_length"]

CHANNELS = ISA.channels
DEPTH = 128  # steps


@register_jitable
def round_up(count: int, step: int) -> int:
    """The least multiple of `step` that is at least `count`."""
    return -(-count // step) * step


@register_jitable
def row_length(channels: int) -> int:
    """Numbers from one row of a scratch array to the next: the channels padded to a multiple of
    CHANNELS, and many channels to an odd number of cache lines. At powers of two, a column would
    have a few cache sets to itself.
    """
    length = round_up(channels, CHANNELS)
    return length + 16 if length >= 128 and length % 32 == 0 else length


def make_tile(width: int, rows: tuple[int, ...], accumulate: bool, pairs: bool = False) -> Any:
    """One tile of the product, as a function of (vectors, a, b, c, depth, a_row, a_step, b_row,
    c_row) that does rows[vectors - 1] rows. `depth` is at least 1.
    """

    @vector_function(width)
    def tile(lanes, vectors, a, b, c, depth, a_row, a_step, b_row, c_row):
        """c (+)= a @ b"""
        operands = a, b, c, depth, a_row, a_step, b_row, c_row
        builder = lanes.builder
        done = builder.append_basic_block("done")
        choice = builder.switch(vectors, done)
        for count in range(1, len(rows) + 1):
            block = builder.append_basic_block(f"vectors{count}")
            choice.add_case(INT64(count), block)
            builder.position_at_end(block)
            _tile(lanes, rows[count - 1], count, accumulate, pairs, *operands)
            builder.branch(done)
        builder.position_at_end(done)

    return tile


def _tile(
    lanes: Lanes,
    rows: int,
    vectors: int,
    accumulate: bool,
    pairs: bool,
    a: Any,
    b: Any,
    c: Any,
    depth: Any,
    a_row: Any,
    a_step: Any,
    b_row: Any,
    c_row: Any,
) -> None:
    """The instructions of one tile size: start, loop over the depth, store."""
    builder = lanes.builder
    bytes_of_vector = 4 * lanes.width
    places = [(i, j) for i in range(rows) for j in range(vectors)]
    a_rows = lanes.steps(a, a_row, rows)
    c_rows = lanes.steps(c, c_row, rows)
    before, loop = builder.block, builder.append_basic_block("loop")
    after = builder.append_basic_block("after")
    builder.branch(loop)
    builder.position_at_end(loop)

    def changing(kind: Any, first: Any) -> ir.PhiInstr:
        value = builder.phi(kind)
        value.add_incoming(first, before)
        return value

    left, along_a, b_here = changing(INT64, depth), changing(INT64, INT64(0)), changing(INT64, b)
    sums = [changing(lanes.type, lanes.constant(0.0)) for _ in places]
    b_vectors = [lanes.load(lanes.offset(b_here, bytes_of_vector * j)) for j in range(vectors)]
    a_numbers = [lanes.broadcast(lanes.offset(row, along_a)) for row in a_rows]
    multiply_add = lanes.multiply_add_pairs if pairs else lanes.multiply_add
    new = [multiply_add(a_numbers[i], b_vectors[j], total) for (i, j), total in zip(places, sums)]
    fewer = builder.sub(left, INT64(1))
    left.add_incoming(fewer, loop)
    along_a.add_incoming(builder.add(along_a, a_step), loop)
    b_here.add_incoming(builder.add(b_here, b_row), loop)
    for total, value in zip(sums, new):
        total.add_incoming(value, loop)
    builder.cbranch(builder.icmp_signed(">", fewer, INT64(0)), loop, after)
    builder.position_at_end(after)
    for (i, j), value in zip(places, new):
        place = lanes.offset(c_rows[i], bytes_of_vector * j)
        lanes.store(lanes.add(lanes.load(place), value) if accumulate else value, place)


def make_product(width: int, rows: tuple[int, ...], pairs: bool = False) -> Callable[..., None]:
    """A product of any number of rows and 1 to len(rows) vectors of columns, tile below tile.

    The function takes (add, count, vectors, a, b, c, depth, a_row, a_step, b_row, c_row) and
    computes `count` rows, rounded up to a multiple of rows[vectors - 1]: c += a @ b if `add`, else
    c = a @ b. With `pairs`, each number of a and b is a pair of bf16 (`bf16`), and the depth counts
    pairs.
    """
    overwrite = make_tile(width, rows, False, pairs)
    accumulate = make_tile(width, rows, True, pairs)

    def product(add, count, vectors, a, b, c, depth, a_row, a_step, b_row, c_row):
        step = rows[vectors - 1]
        for done in range(0, depth, DEPTH):  # these rows of b stay in the innermost cache
            here = min(DEPTH, depth - done)
            y = b + done * b_row
            for i in range(0, count, step):
                x, z = a + i * a_row + done * a_step, c + i * c_row
                if add or done:
                    accumulate(vectors, x, y, z, here, a_row, a_step, b_row, c_row)
                else:
                    overwrite(vectors, x, y, z, here, a_row, a_step, b_row, c_row)

    # Compiled code that comes from the cache and code that is compiled now are linked by names and
    # by numbers that begin at 1 in every process: two products of one name could be exchanged.
    kind = [f"product{width}", *map(str, rows), *(["pairs"] if pairs else [])]
    product.__name__ = product.__qualname__ = "_".join(kind)
    return numba.njit(nogil=True)(product)
