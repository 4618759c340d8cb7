"""bf16 operands: products of numbers rounded to 8 bits of mantissa, summed in float32.

A bf16 is the upper half of a float32: the same range, 2 to 3 decimal digits. One instruction of
CPUs that know it (AVX512_BF16) multiplies two pairs in each of 16 lanes and adds both products to
a float32, so a product of matrices does up to twice as many multiplications in the same time.

Inside `operands("bf16")` the convolutions that gather columns (`direct`) round them, the weights
and the gradients in the cache, right before the product; images, weights and sums stay float32
everywhere else. Winograd convolutions stay float32: their transforms amplify the rounding of the
operands four times (1 % of error instead of 0.24 %), and with float32 they are faster already. CPUs
that have a unit for products of bf16 matrices do more at a time: `amx`, `tiled`.

    row i of pixels      x[0] x[1] | x[2] x[3] | …           pairs along the row: `round_rows`
    two rows of weights  w0[0] w1[0] | w0[1] w1[1] | …       pairs across them: `pair_rows`

A pair takes the place of one float32, so the micro-kernel walks over pairs as over numbers.

Source: Intel, "BFLOAT16 hardware numerics definition", 2018.
"""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
from llvmlite import binding as llvm
from llvmlite import ir

from .isa import ISA
from .precision import operand_kind
from .simd import INT32, Lanes, vector_function

__all__ = ["AVAILABLE", "nearest_bits", "pair_rows", "pair_vectors", "round_rows", "round_vector"]
__all__ += ["rounded", "uses_bf16"]

WIDTH = ISA.width or 1
# LLVM names the feature; held down to AVX2, the instruction is beyond
AVAILABLE = ISA.name == "avx512" and bool(llvm.get_host_cpu_features().get("avx512bf16"))


def uses_bf16(dtype: Any) -> bool:
    """Whether products of arrays of this dtype may round their operands to bf16 now."""
    return operand_kind() == "bf16" and AVAILABLE and dtype == np.float32


def rounded(x: np.ndarray) -> np.ndarray:
    """float32 numbers rounded to the nearest bf16, ties to even: the reference.

    >>> rounded(np.array([1.0, 1.00390625, 3.1415927], np.float32)).tolist()
    [1.0, 1.0, 3.140625]
    """
    bits = np.ascontiguousarray(x, np.float32).view(np.uint32)
    nearest = bits + np.uint32(0x7FFF) + (bits >> np.uint32(16) & np.uint32(1))
    nearest = np.where(np.isnan(x), np.uint32(0x7FC00000), nearest & np.uint32(0xFFFF0000))
    return nearest.view(np.float32)


def nearest_bits(lanes: Lanes, x: Any) -> Any:
    """The vector's bits, rounded: the upper half of each lane is the bf16."""
    build, numbers = lanes.builder, ir.VectorType(INT32, lanes.width)

    def every(value: int) -> Any:
        return ir.Constant(numbers, [value] * lanes.width)

    bits = build.bitcast(x, numbers)
    last = build.and_(build.lshr(bits, every(16)), every(1))
    nearest = build.add(build.add(bits, every(0x7FFF)), last)
    return build.select(build.fcmp_unordered("uno", x, x), every(0x7FC00000), nearest)


@vector_function(WIDTH)
def round_vector(lanes, to, x, count, pairs):
    """The first `count` numbers at x, rounded, and zeros up to `pairs` pairs, side by side."""
    halves = ir.VectorType(ir.IntType(16), lanes.width)
    build, numbers = lanes.builder, ir.VectorType(INT32, lanes.width)
    bits = nearest_bits(lanes, lanes.load(x, lanes.first(count)))
    shift = ir.Constant(numbers, [16] * lanes.width)
    narrow = build.trunc(build.lshr(bits, shift), halves)
    lanes.store_halves(narrow, to, lanes.first(build.add(pairs, pairs)))


@vector_function(WIDTH)
def pair_vectors(lanes, to, x, y, count, seconds):
    """(x[i], y[i]) for the first `count` numbers; after `seconds` of y its are zero."""
    build, numbers = lanes.builder, ir.VectorType(INT32, lanes.width)
    mask = lanes.first(count)
    low = nearest_bits(lanes, lanes.load(x, mask))
    high = nearest_bits(lanes, lanes.load(y, lanes.first(seconds)))
    high = build.and_(high, ir.Constant(numbers, [0xFFFF0000] * lanes.width))
    low = build.lshr(low, ir.Constant(numbers, [16] * lanes.width))
    lanes.store(build.bitcast(build.or_(low, high), lanes.type), to, mask)


@numba.njit(nogil=True)
def round_rows(x, row, rows, count):
    """Round `rows` rows of `count` numbers, at distance `row` bytes, in place: each then begins
    with its (count + 1) // 2 pairs.
    """
    for i in range(rows):
        here = x + i * row
        for j in range(0, count, WIDTH):
            left = min(count - j, WIDTH)
            round_vector(here + 2 * j, here + 4 * j, left, (left + 1) // 2)


@numba.njit(nogil=True)
def pair_rows(x, row, rows, count):
    """Pair rows 0 and 1, 2 and 3, … of `count` numbers, at distance `row` bytes, in place: the
    pairs of rows 2i and 2i + 1 become row i. An odd last row is paired with zeros.
    """
    for i in range(0, rows, 2):
        first, to = x + i * row, x + i // 2 * row
        for j in range(0, count, WIDTH):
            left = min(count - j, WIDTH)
            seconds = left if i + 1 < rows else 0
            pair_vectors(to + 4 * j, first + 4 * j, first + row + 4 * j, left, seconds)
