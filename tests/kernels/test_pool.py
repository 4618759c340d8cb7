"""Max-pooling kernels: ties, NaN, padding, overlapping windows."""

from __future__ import annotations

import numpy as np
import pytest

from minires.kernels.dispatch import reference
from minires.kernels.pool import max_pool2d, max_pool2d_gradient

__all__: list[str] = []

SHAPES = [
    ((2, 2), (2, 2), (0, 0)),
    ((3, 3), (2, 2), (1, 1)),
    ((3, 2), (1, 2), (1, 0)),
    ((2, 3), (3, 1), (0, 1)),
]


@pytest.mark.parametrize(("window", "stride", "padding"), SHAPES)
@pytest.mark.parametrize("values", ["normal", "ties", "nan"])
def test_twins_equal_references(rng, window, stride, padding, values):
    x = rng.standard_normal((3, 7, 6, 5)).astype(np.float32)
    if values == "ties":
        x = np.round(x)
    elif values == "nan":
        x[rng.random(x.shape) < 0.2] = np.nan
    params = {"window": window, "stride": stride, "padding": padding}
    y, index = max_pool2d(x, **params)
    g = rng.standard_normal(y.shape).astype(np.float32)
    dx = max_pool2d_gradient(g, index, size=(7, 6), **params)
    with reference():
        y_slow, index_slow = max_pool2d(x, **params)
        dx_slow = max_pool2d_gradient(g, index, size=(7, 6), **params)
    np.testing.assert_array_equal(y, y_slow)
    np.testing.assert_array_equal(index, index_slow)
    np.testing.assert_allclose(dx, dx_slow, atol=1e-6)
    assert dx.sum() == pytest.approx(g.sum(), abs=1e-3)  # every output's gradient lands somewhere


def test_all_negative_windows_ignore_the_padding():
    x = np.full((1, 2, 2, 1), -5.0)
    y, _ = max_pool2d(x, window=(3, 3), stride=(2, 2), padding=(1, 1))
    assert y.ravel().tolist() == [-5]
