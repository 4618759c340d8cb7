"""The product's tiles, for every instruction set that can run here: remainders, layouts, guards."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import numba
import numpy as np
import pytest

from minires.kernels.isa import SETS
from minires.kernels.microkernel import DEPTH, make_product, round_up
from minires.kernels.simd import Lanes, vector_function
from tests import tolerances

__all__: list[str] = []

pytestmark = pytest.mark.skipif(
    numba.config.DISABLE_JIT, reason="vector functions exist in compiled code only"
)

# LLVM splits vectors that the CPU does not have, so every set's tiles can be tested anywhere
VECTOR_SETS = [s.name for s in SETS.values() if s.width]
DEPTHS = 1, 2, 7, DEPTH, DEPTH + 1, 2 * DEPTH + 3
GUARD = 64  # numbers on both sides of a buffer
MARK = np.float32(-7.5)


@cache
def product(name: str, short: bool) -> Callable[..., None]:
    isa = SETS[name]
    return make_product(isa.width, isa.short_rows if short else isa.rows)


def guarded(shape: tuple[int, ...], fill: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
    """(an array with marks before and after it, the marks and the array as one)"""
    size = int(np.prod(shape))
    whole = np.full(size + 2 * GUARD, MARK)
    inner = whole[GUARD : GUARD + size].reshape(shape)
    inner[...] = fill
    return inner, whole


@pytest.mark.parametrize("accumulate", [False, True])
@pytest.mark.parametrize("short", [False, True])
@pytest.mark.parametrize("name", VECTOR_SETS)
def test_every_tile_and_remainder(rng, name, short, accumulate):
    isa = SETS[name]
    for vectors, step in enumerate(isa.short_rows if short else isa.rows, 1):
        columns = vectors * isa.width
        for count in range(1, 2 * step + 1):
            rows, depth = (
                round_up(count, step),
                (1, 2, 7, DEPTH, DEPTH + 1, 2 * DEPTH + 3)[count % 6],
            )
            a = rng.standard_normal((rows, depth)).astype(np.float32)
            b = rng.standard_normal((depth, columns)).astype(np.float32)
            a_row, a_step = 4 * depth, 4
            if short:  # as in the weight gradient: the rows of a are side by side
                a, a_row, a_step = np.ascontiguousarray(a.T), 4, 4 * rows
            c, whole = guarded((rows, columns), fill=2)
            product(name, short)(
                accumulate, count, vectors, a.ctypes.data, b.ctypes.data, c.ctypes.data,
                depth, a_row, a_step, 4 * columns, 4 * columns,
            )  # fmt: skip
            expected = (a.T if short else a).astype(np.float64) @ b + 2 * accumulate
            np.testing.assert_allclose(c, expected, rtol=0, atol=tolerances.PRODUCT32)
            assert (whole[:GUARD] == MARK).all()
            assert (whole[-GUARD:] == MARK).all()


def test_columns_between_others_are_left_alone(rng):
    """c and b may be blocks of wider matrices."""
    isa = SETS["avx2"]
    b = rng.standard_normal((3, 4 * isa.width)).astype(np.float32)
    a = rng.standard_normal((12, 3)).astype(np.float32)
    c = np.full((12, 4 * isa.width), MARK)
    start = 4 * isa.width
    product("avx2", False)(
        False, 12, 2, a.ctypes.data, b.ctypes.data + start, c.ctypes.data + start,
        3, 12, 4, b.strides[0], c.strides[0],
    )  # fmt: skip
    block = slice(isa.width, 3 * isa.width)
    np.testing.assert_allclose(c[:, block], a @ b[:, block], rtol=0, atol=tolerances.PRODUCT32)
    c[:, block] = MARK
    assert (c == MARK).all()


@pytest.mark.parametrize("width", [4, 8, 16])
def test_masks_read_and_write_the_first_lanes_only(width):
    def copy_body(lanes: Lanes, source, to, count=None) -> None:
        mask = lanes.first(count)
        lanes.store(lanes.add(lanes.load(source, mask), lanes.constant(1)), to, mask)

    copy = vector_function(width, optional=True)(copy_body)
    copy_all = vector_function(width)(copy_body)

    @numba.njit
    def run(source, to, count):
        if count < width:
            copy(source, to, count)
        else:
            copy_all(source, to)

    source = np.arange(width, dtype=np.float32)
    for count in range(width + 1):
        to = np.full(width + 1, MARK)
        run(source.ctypes.data, to.ctypes.data, count)
        assert (to[:count] == source[:count] + 1).all()
        assert (to[count:] == MARK).all()
