"""Products of bf16 matrices on AMX, the matrix unit of Intel's CPUs since Sapphire Rapids.

The unit has eight registers of 16 rows of 64 bytes, called tiles. One instruction multiplies a tile
of a, 16 rows of 32 bf16, with a tile of b, 16 rows of 16 pairs, and adds to a tile of c, 16 rows
of 16 float32: 8,192 multiplications, as many as 256 of `Lanes.multiply_add_pairs`. Tiles cannot be
loaded much faster than they are multiplied, so four tiles of c share two of a and two of b, and of
b so much is taken at a time as stays in the nearest cache.

    a   row i, pair l      at  a + i//16·a_down + i%16·a_row + l//16·a_step + l%16·4
    b   pair l, column j   at  b + l·128 + j·4       panels of 32 columns (or 16: l·64)
    c   row i, column j    at  c + i·c_row + j·4     16 or 32 float32

Pairs are those of `bf16`: a row of b holds two rows of the matrix. Depths are multiples of 16
pairs; where a matrix has fewer, zeros fill up. Rows of a and c are computed 16 at a time.

A process has to ask Linux for the unit (`available`), and each thread lays out its tiles
(`open_tiles`) before the first product and gives them back afterwards (`close_tiles`).

Source: Intel, "Architecture instruction set extensions programming reference", chapter 3, 2023.
"""

from __future__ import annotations

import ctypes
import platform
import sys
from functools import cache
from typing import Any

import numba
from llvmlite import binding as llvm
from llvmlite import ir

from . import bf16
from .bf16 import nearest_bits
from .simd import INT32, INT64, Lanes, vector_function

__all__ = ["PANEL", "STEP", "TILE", "available", "close_tiles", "interleave_rows", "multiply_tiles"]
__all__ += ["open_tiles", "pair_square", "pair_tile", "transpose_tile"]

TILE = 16  # rows of a tile, and the float32 or pairs in one row
PANEL = 2 * TILE  # columns of b that are multiplied together
STEP = 16  # pairs: depths are multiples of this
DEPTH = 256  # pairs: a panel of so many rows takes 32 KB

# arch_prctl(ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA) of x86-64 Linux
ARCH_PRCTL, REQUEST_PERMISSION, TILE_DATA = 158, 0x1023, 18

BYTE = ir.IntType(8)
VOID = ir.VoidType()
MASK = ir.VectorType(ir.IntType(1), TILE)


@cache
def available() -> bool:
    """Whether the CPU has AMX for bf16, and the system lets this process use it from now on."""
    features = llvm.get_host_cpu_features()
    if not (bf16.AVAILABLE and features.get("amx-bf16") and features.get("amx-tile")):
        return False
    if sys.platform != "linux" or platform.machine() != "x86_64":
        return False
    system = ctypes.CDLL(None)
    return system.syscall(ARCH_PRCTL, REQUEST_PERMISSION, TILE_DATA) == 0


def _place(lanes: Lanes, address: Any) -> Any:
    return lanes.builder.inttoptr(address, BYTE.as_pointer())


def _instruction(lanes: Lanes, name: str, *operands: Any) -> None:
    kind = ir.FunctionType(VOID, [operand.type for operand in operands])
    lanes.call(f"llvm.x86.{name}", kind, list(operands))


@vector_function(TILE)
def open_tiles(lanes):
    """Lay out the eight tiles of this thread: 16 rows of 64 bytes each."""
    palette, rows, row_bytes = [1] + [0] * 15, [TILE] * 8 + [0] * 8, [4 * TILE, 0] * 8 + [0] * 16
    layout = palette + row_bytes + rows
    kind = ir.ArrayType(BYTE, len(layout))
    builder = lanes.builder
    with builder.goto_entry_block():
        place = builder.alloca(kind)
    builder.store(ir.Constant(kind, layout), place)
    _instruction(lanes, "ldtilecfg", builder.bitcast(place, BYTE.as_pointer()))


@vector_function(TILE)
def close_tiles(lanes):
    """Give the tiles back: the system then has less to save when it switches threads."""
    _instruction(lanes, "tilerelease")


@vector_function(TILE)
def _multiply(lanes, rows, columns, add, a, b, c, depth, a_row, a_down, a_step, b_row, c_row):
    """One or two tiles of rows times one or two of columns: c = a @ b, or c += a @ b if `add`."""
    builder, operands = lanes.builder, (a, b, c, depth, a_row, a_down, a_step, b_row, c_row)
    done = builder.append_basic_block("done")
    shape = builder.add(builder.mul(rows, INT64(2)), columns)
    choice = builder.switch(shape, done)
    for down in (1, 2):
        for across in (1, 2):
            block = builder.append_basic_block(f"tiles{down}x{across}")
            choice.add_case(INT64(2 * down + across), block)
            builder.position_at_end(block)
            _tiles(lanes, down, across, add, *operands)
            builder.branch(done)
    builder.position_at_end(done)


def _tiles(
    lanes: Lanes,
    down: int,
    across: int,
    add: Any,
    a: Any,
    b: Any,
    c: Any,
    depth: Any,
    a_row: Any,
    a_down: Any,
    a_step: Any,
    b_row: Any,
    c_row: Any,
) -> None:
    """The instructions for so many tiles of c: load or clear, loop over the depth, store."""
    builder = lanes.builder
    sums = [(2 * i + j, i, j) for i in range(down) for j in range(across)]
    c_places = {
        t: lanes.offset(lanes.steps(c, builder.mul(c_row, INT64(TILE)), down)[i], 4 * TILE * j)
        for t, i, j in sums
    }
    with builder.if_else(builder.icmp_signed("!=", add, INT64(0))) as (then, otherwise):
        with then:
            for t, _, _ in sums:
                _instruction(lanes, "tileloadd64", BYTE(t), _place(lanes, c_places[t]), c_row)
        with otherwise:
            for t, _, _ in sums:
                _instruction(lanes, "tilezero", BYTE(t))
    a_places = lanes.steps(a, a_down, down)
    before, loop = builder.block, builder.append_basic_block("loop")
    after = builder.append_basic_block("after")
    builder.branch(loop)
    builder.position_at_end(loop)
    left, along_a, b_here = (builder.phi(INT64) for _ in range(3))
    for value, first in ((left, depth), (along_a, INT64(0)), (b_here, b)):
        value.add_incoming(first, before)
    for j in range(across):
        place = _place(lanes, lanes.offset(b_here, 4 * TILE * j))
        _instruction(lanes, "tileloadd64", BYTE(6 + j), place, b_row)
    for i in range(down):
        place = _place(lanes, lanes.offset(a_places[i], along_a))
        _instruction(lanes, "tileloadd64", BYTE(4 + i), place, a_row)
        for j in range(across):
            _instruction(lanes, "tdpbf16ps", BYTE(2 * i + j), BYTE(4 + i), BYTE(6 + j))
    fewer = builder.sub(left, INT64(STEP))
    left.add_incoming(fewer, loop)
    along_a.add_incoming(builder.add(along_a, a_step), loop)
    b_here.add_incoming(builder.add(b_here, builder.mul(b_row, INT64(STEP))), loop)
    builder.cbranch(builder.icmp_signed(">", fewer, INT64(0)), loop, after)
    builder.position_at_end(after)
    for t, _, _ in sums:
        _instruction(lanes, "tilestored64", BYTE(t), _place(lanes, c_places[t]), c_row)


@numba.njit(nogil=True)
def multiply_tiles(add, rows, columns, a, b, c, depth, a_row, a_down, a_step, c_row):
    """c (rows, columns) = a @ b, or c += a @ b if `add`, for one panel b of 16 or 32 columns and a
    depth in pairs. Rows are rounded up to a multiple of 16.
    """
    across = (columns + TILE - 1) // TILE
    b_row = 4 * TILE * across
    for low in range(0, depth, DEPTH):
        here = min(depth - low, DEPTH)
        for i in range(0, rows, 2 * TILE):
            down = 2 if rows - i > TILE else 1
            _multiply(
                down, across, int(add or low > 0), a + i // TILE * a_down + low // STEP * a_step,
                b + low * b_row, c + i * c_row, here, a_row, a_down, a_step, b_row, c_row,
            )  # fmt: skip


def _transposed(lanes: Lanes, rows: list[Any]) -> list[Any]:
    """16 vectors of 16 lanes, with rows and lanes exchanged: in four rounds, squares of 1, 2, 4 and
    8 lanes change places across the diagonal.
    """
    for size in (1, 2, 4, 8):
        low = [j if not j & size else TILE + j - size for j in range(TILE)]
        high = [j + size if not j & size else TILE + j for j in range(TILE)]
        masks = [ir.Constant(ir.VectorType(INT32, TILE), order) for order in (low, high)]
        for i in (i for i in range(TILE) if not i & size):
            x, y = rows[i], rows[i + size]
            rows[i] = lanes.builder.shuffle_vector(x, y, masks[0])
            rows[i + size] = lanes.builder.shuffle_vector(x, y, masks[1])
    return rows


@vector_function(TILE)
def pair_tile(lanes, to, x, row, rows, count):
    """A tile of the transposed matrix: to (16, 16 pairs) from x (up to 32 rows, up to 16 numbers),
    the pairs of which are two rows of x; zero beyond.
    """
    numbers = ir.VectorType(INT32, TILE)
    build, pairs = lanes.builder, []
    upper, half = (ir.Constant(numbers, [v] * TILE) for v in (0xFFFF0000, 16))
    zero = INT64(0)
    for i in range(TILE):
        two = []
        for line in (2 * i, 2 * i + 1):
            there = build.icmp_signed(">", rows, INT64(line))
            mask = lanes.first(build.select(there, count, zero))
            two.append(nearest_bits(lanes, lanes.load(lanes.steps(x, row, line + 1)[line], mask)))
        pairs.append(build.or_(build.lshr(two[0], half), build.and_(two[1], upper)))
    for i, vector in enumerate(_transposed(lanes, pairs)):
        lanes.store(build.bitcast(vector, lanes.type), lanes.offset(to, 4 * TILE * i))


@vector_function(TILE)
def pair_square(lanes, to, to_row, pairs, x, row, rows, count):
    """The pairs of neighbours, transposed: to (up to 16 pairs, 16) from x (up to 16 rows, up to 32
    numbers); zero beyond.
    """
    halves = ir.VectorType(ir.IntType(16), TILE)
    both = ir.Constant(ir.VectorType(INT32, 2 * TILE), list(range(2 * TILE)))
    build, rounded, zero = lanes.builder, [], INT64(0)
    rest = build.sub(count, INT64(TILE))
    rest = build.select(build.icmp_signed(">", rest, zero), rest, zero)
    for i, place in enumerate(lanes.steps(x, row, TILE)):
        there, parts = build.icmp_signed(">", rows, INT64(i)), []
        for j, numbers in enumerate((count, rest)):
            mask = lanes.first(build.select(there, numbers, zero))
            bits = nearest_bits(lanes, lanes.load(lanes.offset(place, 4 * TILE * j), mask))
            parts.append(build.trunc(build.lshr(bits, ir.Constant(bits.type, [16] * TILE)), halves))
        line = build.shuffle_vector(*parts, both)
        rounded.append(build.bitcast(line, ir.VectorType(INT32, TILE)))
    for i, vector in enumerate(_transposed(lanes, rounded)):
        mask = lanes.every_lane(build.icmp_signed(">", pairs, INT64(i)), MASK)
        place = lanes.steps(to, to_row, i + 1)[i]
        lanes.store(build.bitcast(vector, lanes.type), place, mask)


@vector_function(TILE)
def transpose_tile(lanes, to, to_row, to_rows, to_count, x, x_row, add):
    """to (to_rows, to_count) = the transpose of x, 16 x 16 float32, or to += it if `add`."""
    rows = [lanes.load(place) for place in lanes.steps(x, x_row, TILE)]
    mask, builder = lanes.first(to_count), lanes.builder
    for i, vector in enumerate(_transposed(lanes, rows)):
        place = lanes.steps(to, to_row, i + 1)[i]
        there = builder.icmp_signed(">", to_rows, INT64(i))
        bits = builder.and_(mask, lanes.every_lane(there, mask.type))
        adds = lanes.every_lane(builder.icmp_signed("!=", add, INT64(0)), mask.type)
        before = lanes.load(place, builder.and_(bits, adds))
        lanes.store(lanes.add(vector, before), place, bits)


@vector_function(TILE)
def interleave_rows(lanes, to, x, y, count):
    """32 pairs (x[i], y[i]) from `count` pairs of two rows of bf16; zero beyond."""
    halves = ir.VectorType(ir.IntType(16), 2 * TILE)
    builder, mask = lanes.builder, lanes.first(count)
    first, second = (builder.bitcast(lanes.load(place, mask), halves) for place in (x, y))
    for i in range(2):
        order = [n for j in range(TILE * i, TILE * (i + 1)) for n in (j, 2 * TILE + j)]
        mixed = builder.shuffle_vector(
            first, second, ir.Constant(ir.VectorType(INT32, 2 * TILE), order)
        )
        lanes.store(builder.bitcast(mixed, lanes.type), lanes.offset(to, 4 * TILE * i))
