"""Philox: the published words, draws that depend on their key alone, and plausible moments."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minires.kernels.dispatch import reference
from minires.kernels.random import Key, bits, integers, normal, permutation, philox, uniform

__all__: list[str] = []

# from the known-answer tests of the authors' library: counter and key -> words
KNOWN = [
    ((0, 0, 0), 0, (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
    (
        (2**64 - 1, 2**32 - 1, 2**64 - 1),
        2**32 - 1,
        (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD),
    ),
    (
        (0x299F31D0A4093822, 0x85A308D3, 0x0370734413198A2E),
        0x243F6A88,
        (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
    ),
]


@pytest.mark.parametrize(("key", "block", "words"), KNOWN)
def test_known_answers(key, block, words):
    seed, stream, step = (np.uint64(v) for v in key)
    assert tuple(int(w) for w in philox(seed, stream, step, np.uint64(block))) == words


def test_first_block_of_the_reference():
    with reference():
        assert bits(Key(0), 4).tolist() == list(KNOWN[0][2])


@given(
    st.integers(0, 2**64 - 1),
    st.integers(0, 2**32 - 1),
    st.integers(0, 2**64 - 1),
    st.integers(0, 70),
)
def test_twin_equals_reference(seed, stream, step, count):
    key = Key(seed, stream, step)
    with reference():
        expected = bits(key, count)
    assert np.array_equal(bits(key, count), expected)


def test_a_longer_draw_starts_with_the_shorter_one():
    assert np.array_equal(bits(Key(5), 1001)[:13], bits(Key(5), 13))


def test_seed_stream_and_step_all_matter():
    draws = {bits(Key(*k), 4).tobytes() for k in [(0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1)]}
    assert len(draws) == 4


def test_uniform_and_normal_moments():
    u, z = uniform(Key(1), (200, 500)), normal(Key(2), (200, 500))
    assert u.dtype == z.dtype == np.float32
    assert u.min() >= 0
    assert u.max() < 1
    assert abs(u.mean() - 0.5) < 0.005
    assert abs(u.var() - 1 / 12) < 0.001
    assert abs(z.mean()) < 0.01
    assert abs(z.var() - 1) < 0.02
    assert abs((z**4).mean() - 3) < 0.15


def test_float64_draws_equal_float32_ones():
    assert np.array_equal(uniform(Key(3), (50,), np.float64), uniform(Key(3), (50,)))


def test_integers_and_permutation():
    n = integers(Key(4), (1000, 10), 7)
    assert (n.min(), n.max(), n.dtype) == (0, 6, np.int64)
    assert abs(np.bincount(n.ravel()) - 10_000 / 7).max() < 150
    order = permutation(Key(5), 1000)
    assert sorted(order.tolist()) == list(range(1000))
    assert not np.array_equal(order, np.arange(1000))
    assert permutation(Key(5), 0).size == 0
