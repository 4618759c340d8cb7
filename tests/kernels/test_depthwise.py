"""Depthwise convolutions against the reference: any window, both dtypes, threads, errors."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from minires.kernels import conv, depthwise
from minires.kernels.dispatch import ran, reference
from minires.kernels.im2col import output_size
from minires.kernels.memory import set_threads
from tests import tolerances
from tests.gpu.everywhere import TWIN

__all__: list[str] = []


def all_three(x: Any, w: Any, g: Any, params: Any) -> list[np.ndarray]:
    """y, dx, dw"""
    params = {**params, "groups": x.shape[3]}
    return [
        conv.conv2d(x, w, **params),
        conv.conv2d_input_gradient(g, w, size=x.shape[1:3], **params),
        conv.conv2d_weight_gradient(x, g, window=w.shape[:2], **params),
    ]


def draw(rng: Any, x: Any, window: Any, stride: Any, padding: Any, dilation: Any) -> Any:
    params = {"stride": stride, "padding": padding, "dilation": dilation}
    places = zip(x[1:3], window, stride, padding, dilation)
    g = (x[0], *(output_size(*place) for place in places), x[3])
    return *(rng.standard_normal(shape) for shape in (x, (*window, 1, x[3]), g)), params


def check(x: Any, w: Any, g: Any, params: Any) -> None:
    with reference():
        expected = all_three(x, w, g, params)
    for dtype, limit in ((np.float32, tolerances.CONV32), (np.float64, tolerances.FLOAT64)):
        with ran() as log:
            results = all_three(*(a.astype(dtype) for a in (x, w, g)), params)
        assert [which for _, which in log] == [TWIN] * 3
        for name, got, y in zip(("y", "dx", "dw"), results, expected):
            assert got.shape == y.shape
            assert got.dtype == dtype
            error = np.sqrt(((got - y) ** 2).sum() / ((y**2).sum() or 1))
            assert error < limit, f"{name} of x={x.shape}, w={w.shape}, {params}"


pairs = st.tuples(st.integers(1, 3), st.integers(1, 3))


@settings(max_examples=100)
@given(
    st.tuples(st.integers(1, 5), st.integers(1, 20), st.integers(1, 20), st.integers(1, 70)),
    st.tuples(st.integers(1, 5), st.integers(1, 5)),
    pairs,
    st.tuples(st.integers(0, 3), st.integers(0, 3)),
    pairs,
)
def test_any_parameters(x, window, stride, padding, dilation):
    for size, taps, i in ((x[1], window[0], 0), (x[2], window[1], 1)):
        assume(output_size(size, taps, stride[i], padding[i], dilation[i]) > 0)
    check(*draw(np.random.default_rng(sum(x)), x, window, stride, padding, dilation))


def test_error_of_long_sums(rng):
    check(*draw(rng, (2, 60, 50, 2), (3, 3), (1, 1), (1, 1), (1, 1)))


@pytest.mark.parametrize("images", [1, 3, 7])
def test_any_number_of_threads_gives_the_same_bits(rng, thread_counts, images):
    *arrays, params = draw(rng, (images, 9, 8, 20), (3, 3), (2, 1), (1, 1), (1, 1))
    arrays = [a.astype(np.float32) for a in arrays]
    results = []
    for count in thread_counts:
        set_threads(count)
        results.append(b"".join(a.tobytes() for a in all_three(*arrays, params)))
    assert len(set(results)) == 1


def test_nothing_is_written_outside(rng, monkeypatch):
    wholes = []

    def guarded(shape: tuple[int, ...], dtype: Any) -> np.ndarray:
        wholes.append(np.full(np.prod(shape) + 128, 1e30, dtype))
        wholes[-1][64:-64] = np.nan
        return wholes[-1][64:-64].reshape(shape)

    monkeypatch.setattr(depthwise, "empty", guarded)
    check(*draw(rng, (2, 7, 9, 21), (3, 2), (2, 1), (1, 1), (1, 2)))
    assert len(wholes) == 4
    assert all((v[:64] == 1e30).all() and (v[-64:] == 1e30).all() for v in wholes)


def test_gradients_are_adjoint(rng):
    x, w, g, params = draw(rng, (3, 11, 8, 24), (3, 3), (2, 2), (1, 1), (1, 1))
    y, dx, dw = all_three(x, w, g, params)
    assert np.vdot(g, y) == pytest.approx(np.vdot(dx, x))
    assert np.vdot(g, y) == pytest.approx(np.vdot(dw, w))
