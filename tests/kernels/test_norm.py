"""BatchNorm kernels: every remainder of rows, statistics that do not cancel, any number of
threads."""

from __future__ import annotations

import numpy as np
import pytest

from minires.kernels import norm
from minires.kernels.dispatch import ran, reference
from minires.kernels.memory import set_threads, threads

__all__: list[str] = []

ROWS = [1, 2, 15, 16, 17, 63, 64, 65, 16 * 64 - 1, 16 * 64 + 1, 2500]


@pytest.mark.parametrize("rows", ROWS)
@pytest.mark.parametrize("channels", [1, 3, 17])
def test_moments_of_any_number_of_rows(rng, rows, channels):
    x = rng.standard_normal((rows, channels)) * 3 + 5
    with ran() as log:
        mean, var = norm.channel_moments(x)
    assert log == [("channel_moments", "cpu")]
    np.testing.assert_allclose(mean, x.mean(axis=0), rtol=1e-13)
    np.testing.assert_allclose(var, x.var(axis=0), rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("offset", [0, 100, 10_000])
def test_float32_moments_do_not_cancel(rng, offset):
    """E[x²] - E[x]² would lose all digits here: the mean is up to 10,000 deviations away."""
    x = (rng.standard_normal((5000, 4)) + offset).astype(np.float32)
    mean, var = norm.channel_moments(x)
    np.testing.assert_allclose(mean, x.astype(np.float64).mean(axis=0), rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(var, x.astype(np.float64).var(axis=0), rtol=2e-5)


@pytest.mark.parametrize("rows", ROWS)
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("with_residual", [False, True])
def test_every_row_is_written_by_the_twins(rng, rows, masked, with_residual):
    x, g, y, residual = (rng.standard_normal((rows, 5)).astype(np.float32) for _ in range(4))
    a, b, d = (rng.standard_normal(5) for _ in range(3))
    residual = residual if with_residual else None
    mask = y if masked else None
    calls = [
        lambda: (norm.normalise(x, a, b, residual, relu=masked),),
        lambda: norm.gradient_sums(g, x, a, mask),
        lambda: norm.normalise_gradient(g, x, a, b, d, mask, want_masked=masked),
    ]
    for call in calls:
        with ran() as log:
            fast = call()
        assert {which for _, which in log} == {"cpu"}
        with reference():
            slow = call()
        for f, s in zip(fast, slow, strict=True):
            assert (f is None) == (s is None)
            if f is not None:
                np.testing.assert_allclose(f, s, rtol=1e-4, atol=1e-4)


def test_sums_do_not_depend_on_the_number_of_threads(rng):
    x = rng.standard_normal((3001, 7)).astype(np.float32)
    before, results = threads(), set()
    for count in sorted({1, before}):
        set_threads(count)
        sums = norm.gradient_sums(x, x, x[0].astype(np.float64), x)
        results.add(b"".join(a.tobytes() for a in (*norm.channel_moments(x), *sums)))
    set_threads(before)
    assert len(results) == 1


def test_relu_keeps_nan():
    x = np.array([[np.nan], [-1.0], [2.0]], np.float32)
    y = norm.normalise(x, np.ones(1), np.zeros(1), None, relu=True)
    assert np.isnan(y[0, 0])
    assert y[1:, 0].tolist() == [0, 2]
