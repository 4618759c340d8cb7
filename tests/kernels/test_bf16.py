"""Rounding to bf16 in place, and products of pairs, against array code."""

from __future__ import annotations

import numba
import numpy as np
import pytest

from minires.kernels import bf16
from minires.kernels.isa import ISA
from minires.kernels.microkernel import make_product
from tests import tolerances

__all__: list[str] = []

needs_instruction = pytest.mark.skipif(
    not bf16.AVAILABLE, reason="this CPU has no AVX512_BF16, or it is held down"
)
GUARD = np.float32(-7.5)
EDGES = [0.0, -0.0, 1.0, 1.00390625, 1.01171875, 3e38, -3.4e38, 1e-40, np.inf, -np.inf, np.nan]


@numba.njit
def round_rows(x, row, rows, count):
    bf16.round_rows(x, row, rows, count)


@numba.njit
def pair_rows(x, row, rows, count):
    bf16.pair_rows(x, row, rows, count)


def halves(x: np.ndarray) -> np.ndarray:
    """The bf16 inside float32 storage, as float32."""
    return (x.view(np.uint16).astype(np.uint32) << np.uint32(16)).view(np.float32)


def at(x: np.ndarray) -> int:
    return x.ctypes.data


def test_reference_rounds_to_nearest_even():
    x = np.array([1.0, 1 + 1 / 256, 1 + 3 / 256, 1 + 1.001 / 256, -3.4e38, np.inf, np.nan])
    want = [1.0, 1.0, 1 + 4 / 256, 1 + 2 / 256, -np.inf, np.inf, np.nan]
    np.testing.assert_array_equal(bf16.rounded(x.astype(np.float32)), np.float32(want))


@needs_instruction
@pytest.mark.parametrize("count", [1, 2, 3, 15, 16, 17, 31, 32, 33, 50])
def test_rows_become_pairs(rng, count):
    rows = 3
    x = np.full(rows * count + 40, GUARD)
    x[: rows * count] = rng.standard_normal(rows * count)
    x[: min(count, len(EDGES))] = EDGES[:count]
    before = x[: rows * count].reshape(rows, count).copy()
    round_rows(at(x), 4 * count, rows, count)
    assert (x[rows * count :] == GUARD).all()
    pairs = (count + 1) // 2
    got = halves(np.ascontiguousarray(x[: rows * count].reshape(rows, count)[:, :pairs]))
    np.testing.assert_array_equal(got[:, :count], bf16.rounded(before))
    assert (got[:, count:] == 0).all()


@needs_instruction
@pytest.mark.parametrize("rows", [1, 2, 3, 4, 7])
@pytest.mark.parametrize("count", [1, 15, 16, 17, 40])
def test_pairs_of_rows(rng, rows, count):
    x = np.full(rows * count + 40, GUARD)
    x[: rows * count] = rng.standard_normal(rows * count)
    before = np.zeros((rows + rows % 2, count), np.float32)
    before[:rows] = x[: rows * count].reshape(rows, count)
    pair_rows(at(x), 4 * count, rows, count)
    assert (x[rows * count :] == GUARD).all()
    got = halves(x[: len(before) // 2 * count]).reshape(-1, count, 2)
    np.testing.assert_array_equal(got[..., 0], bf16.rounded(before[::2]))
    np.testing.assert_array_equal(got[..., 1], bf16.rounded(before[1::2]))


@needs_instruction
@pytest.mark.parametrize("depth", [1, 2, 3, 64, 129, 300])
def test_product_of_pairs(rng, depth):
    product = make_product(ISA.width, ISA.rows, pairs=True)
    pairs = (depth + 1) // 2
    for vectors, rows in enumerate(ISA.rows, 1):
        columns = vectors * ISA.width
        a = rng.standard_normal((rows, 2 * pairs)).astype(np.float32)
        b = rng.standard_normal((2 * pairs, columns)).astype(np.float32)
        a[:, depth:] = 0
        want = bf16.rounded(a).astype(float) @ bf16.rounded(b).astype(float)
        c = np.zeros((rows, columns), np.float32)

        @numba.njit
        def run(a, b, c, rows, columns, vectors, depth, pairs):
            bf16.round_rows(a, 8 * pairs, rows, depth)
            bf16.pair_rows(b, 4 * columns, depth, columns)
            product(False, rows, vectors, a, b, c, pairs, 8 * pairs, 4, 4 * columns, 4 * columns)

        run(at(a), at(b), at(c), rows, columns, vectors, depth, pairs)
        np.testing.assert_allclose(c, want, rtol=0, atol=tolerances.PRODUCT32)
