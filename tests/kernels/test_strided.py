"""Writing into parts of arrays: every count of numbers, stride, rank and number of threads."""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
import pytest

from minires.kernels.dispatch import KERNELS, ran
from minires.kernels.isa import ISA
from minires.kernels.memory import set_threads
from minires.kernels.strided import write_part
from tests.gpu.everywhere import EVERYWHERE

__all__: list[str] = []

COMPILED = ISA.width and not numba.config.DISABLE_JIT  # type: ignore[attr-defined]
TWIN = "cpu" if COMPILED and not EVERYWHERE else "reference"  # CuPy has one launch for it
adding = pytest.mark.parametrize("add", [False, True])


def check(whole: np.ndarray, index: Any, part: np.ndarray, add: bool, which: str = TWIN) -> None:
    """Against NumPy, with everything around the part untouched."""
    expected = whole.copy()
    expected[index] = expected[index] + part if add else part
    with ran() as log:
        write_part(whole[index], part, add=add)
    assert log == [("write_part", which)]
    np.testing.assert_array_equal(whole, expected)


@adding
@pytest.mark.parametrize("count", range(1, 41))
def test_rows_of_any_length(rng, count, add):
    whole = rng.standard_normal((2, 3, 5, count + 9)).astype(np.float32)
    part = rng.standard_normal((2, 3, 3, count)).astype(np.float32)
    check(whole, (..., slice(None, None, 2), slice(4, 4 + count)), part, add)


@adding
@pytest.mark.parametrize("rank", [1, 2, 3, 4])
def test_any_rank_and_stride(rng, rank, add):
    whole = rng.standard_normal((5, 6, 7, 8)[-rank:]).astype(np.float32)
    index = (slice(3, 0, -1), slice(None, None, 3), slice(1, None, 2), slice(2, 7))[-rank:]
    part = rng.standard_normal(whole[index].shape[::-1]).astype(np.float32).T
    check(whole, index, np.ascontiguousarray(part), add)


@adding
def test_any_number_of_threads(rng, thread_counts, add):
    part = rng.standard_normal((3, 5, 4, 6)).astype(np.float32)
    for count in thread_counts:
        set_threads(count)
        for images in (1, 2, 3):
            whole = rng.standard_normal((images, 9, 8, 10)).astype(np.float32)
            check(whole, np.s_[:, :5, ::2, 3:9], part[:images], add)


@adding
@pytest.mark.parametrize(
    ("dtype", "index"), [(np.float64, np.s_[1:3]), (np.float32, np.s_[..., ::2])]
)
def test_the_rest_goes_to_the_reference(rng, dtype, index, add):
    whole = rng.standard_normal((4, 6)).astype(dtype)
    check(whole, index, rng.standard_normal(whole[index].shape).astype(dtype), add, "reference")


@pytest.mark.parametrize("case", KERNELS["write_part"].cases)
def test_cases(rng, case):
    to, part = case.arrays(rng, np.float32)
    expected = to + part if case.params["add"] else part.copy()
    write_part(to, part, **case.params)
    np.testing.assert_array_equal(to, expected)


@adding
@pytest.mark.parametrize("index", [np.s_[:0], np.s_[:, :0], np.s_[:0, 1:2]])
def test_empty_parts_change_nothing(rng, index, add):
    whole = rng.standard_normal((2, 3)).astype(np.float32)
    before = whole.copy()
    write_part(whole[index], whole[index].copy(), add=add)
    np.testing.assert_array_equal(whole, before)
