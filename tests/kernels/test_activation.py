"""The GELU in vectors: how exact it is, over its whole range and for every remainder."""

from __future__ import annotations

import math

import numba
import numpy as np
import pytest

from minires.kernels.activation import gelu, gelu_gradient

__all__: list[str] = []

compiled = pytest.mark.skipif(numba.config.DISABLE_JIT, reason="vectors need the compiler")


def exact(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """GELU and its derivative in float64."""
    x = x.astype(np.float64)
    distribution = np.array([0.5 * math.erfc(-v * math.sqrt(0.5)) for v in x])
    return x * distribution, distribution + x * np.exp(-x * x / 2) / math.sqrt(2 * math.pi)


@compiled
def test_in_float32_it_is_right_to_the_last_digits():
    x = np.linspace(-12, 12, 20_011, dtype=np.float32)
    y, slope = exact(x)
    found, found_slope = gelu(x), gelu_gradient(np.ones_like(x), x)
    np.testing.assert_allclose(found_slope, slope, rtol=0, atol=3e-7)
    np.testing.assert_allclose(found, y, rtol=3e-7, atol=3e-7)
    small = x < -1  # where the result is small, too, relative to itself: to 4e-6 at -12
    np.testing.assert_allclose(found[small], y[small], rtol=8e-6, atol=0)


@compiled
@pytest.mark.parametrize("size", [0, 1, 7, 8, 9, 31, 33, 1000, 4099])
def test_sizes(size: int, rng: np.random.Generator):
    x, g = rng.standard_normal((2, size)).astype(np.float32)
    y, slope = exact(x)
    np.testing.assert_allclose(gelu(x), y, rtol=1e-6, atol=1e-7)
    np.testing.assert_allclose(gelu_gradient(g, x), g * slope, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_far_out_and_not_a_number(dtype: type):
    x = np.array([-1e30, -50, -0.0, 0, 50, 1e30, np.nan], dtype)
    one = np.ones_like(x)
    with np.errstate(over="ignore"):  # of x², without the compiler
        y, slopes = gelu(x), gelu_gradient(one, x)
    np.testing.assert_allclose(y[1:], [0, 0, 0, 50, 1e30, np.nan], atol=1e-35)
    assert abs(y[0]) < 1e-5
    np.testing.assert_allclose(slopes[1:5], [0, 0.5, 0.5, 1], rtol=1e-6, atol=1e-35)
    assert np.isnan(slopes[6])
