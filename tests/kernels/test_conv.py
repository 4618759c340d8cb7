"""Convolution kernels: every shape against plain loops, the adjoint identities, and threads."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from minires.kernels import chunked, conv, parallel
from minires.kernels.dispatch import ran, reference
from minires.kernels.im2col import col2im, im2col, output_size
from minires.kernels.memory import set_threads
from tests import tolerances
from tests.gpu.everywhere import TWIN

__all__: list[str] = []


def loops(x, w, *, stride, padding, dilation, groups):
    """The definition, one output number at a time."""
    (n, h, wd, _), (r, s, cg, k) = x.shape, w.shape
    p = output_size(h, r, stride[0], padding[0], dilation[0])
    q = output_size(wd, s, stride[1], padding[1], dilation[1])
    padded = np.pad(x, ((0, 0), (padding[0],) * 2, (padding[1],) * 2, (0, 0)))
    y = np.zeros((n, p, q, k))
    for i in range(p):
        for j in range(q):
            for o in range(k):
                first = o // (k // groups) * cg
                window = padded[
                    :,
                    i * stride[0] : i * stride[0] + (r - 1) * dilation[0] + 1 : dilation[0],
                    j * stride[1] : j * stride[1] + (s - 1) * dilation[1] + 1 : dilation[1],
                    first : first + cg,
                ]
                y[:, i, j, o] = (window * w[..., o]).sum(axis=(1, 2, 3))
    return y


@st.composite
def convolutions(draw: Any) -> tuple[Any, Any, dict[str, Any]]:
    """Inputs of any small shape with any parameters that fit."""
    groups = draw(st.sampled_from([1, 1, 1, 2, 3]))
    c, k = groups * draw(st.integers(1, 4)), groups * draw(st.integers(1, 4))
    pair = lambda low, high: st.tuples(st.integers(low, high), st.integers(low, high))  # noqa: E731
    (h, w), (r, s) = draw(pair(1, 9)), draw(pair(1, 5))
    params = {
        "stride": draw(pair(1, 3)),
        "padding": draw(pair(0, 3)),
        "dilation": draw(pair(1, 2)),
        "groups": groups,
    }
    for size, window, i in ((h, r, 0), (w, s, 1)):
        strides = params["stride"][i], params["padding"][i], params["dilation"][i]
        assume(output_size(size, window, *strides) > 0)
    rng = np.random.default_rng(draw(st.integers(0, 999)))
    x = rng.standard_normal((draw(st.integers(1, 5)), h, w, c))
    return x, rng.standard_normal((r, s, c // groups, k)), params


@settings(max_examples=150)
@given(convolutions())
def test_forward_equals_the_definition(case):
    x, w, params = case
    expected = loops(x, w, **params)
    for y in both(conv.conv2d, x, w, **params):
        np.testing.assert_allclose(y, expected, rtol=0, atol=1e-12)


@settings(max_examples=150)
@given(convolutions())
def test_gradients_are_adjoint_to_the_forward(case):
    """<g, conv(x, w)> is linear in x and in w, so each gradient is the adjoint map."""
    x, w, params = case
    y = conv.conv2d(x, w, **params)
    g = np.cos(np.arange(y.size)).reshape(y.shape)
    size, window = x.shape[1:3], w.shape[:2]
    for dx in both(conv.conv2d_input_gradient, g, w, size=size, **params):
        assert dx.shape == x.shape
        np.testing.assert_allclose(np.vdot(dx, x), np.vdot(g, y), rtol=1e-10, atol=1e-10)
    for dw in both(conv.conv2d_weight_gradient, x, g, window=window, **params):
        assert dw.shape == w.shape
        np.testing.assert_allclose(np.vdot(dw, w), np.vdot(g, y), rtol=1e-10, atol=1e-10)


def both(kernel: Any, *args: Any, **params: Any) -> list[Any]:
    """The result of the chosen twin and of the reference."""
    result = kernel(*args, **params)
    with reference():
        return [result, kernel(*args, **params)]


@pytest.mark.parametrize("size", [1, 2, 5, 8])
@pytest.mark.parametrize("padding", [0, 1, 4])
@pytest.mark.parametrize(("window", "stride", "dilation"), [(1, 1, 1), (3, 2, 1), (2, 3, 2)])
def test_col2im_is_the_adjoint_of_im2col(rng, size, padding, window, stride, dilation):
    if output_size(size, window, stride, padding, dilation) < 1:
        pytest.skip("the window does not fit")
    x = rng.standard_normal((2, size, size + 1, 3))
    params = {"stride": (stride,) * 2, "padding": (padding,) * 2, "dilation": (dilation,) * 2}
    for columns in both(im2col, x, window=(window,) * 2, **params):
        u = rng.standard_normal(columns.shape)
        for back in both(col2im, u, size=x.shape[1:3], **params):
            assert np.vdot(u, columns) == pytest.approx(np.vdot(back, x), rel=1e-12, abs=1e-12)


PARAMS = {"stride": (1, 1), "padding": (1, 1), "dilation": (1, 1), "groups": 1}


@pytest.mark.parametrize("images", [1, 2, 3, 7])
def test_many_chunks_and_any_number_of_threads_give_the_same_bits(
    rng, thread_counts, monkeypatch, images
):
    monkeypatch.setattr(conv, "choose_convolution", lambda *_: "im2col")
    monkeypatch.setattr(chunked, "CHUNK", 1)  # every image is a chunk of its own
    x = rng.standard_normal((images, 6, 5, 3)).astype(np.float32)
    w = rng.standard_normal((3, 3, 3, 4)).astype(np.float32)
    results = []
    for count in thread_counts:
        set_threads(count)
        y = conv.conv2d(x, w, **PARAMS)
        dx = conv.conv2d_input_gradient(y, w, size=(6, 5), **PARAMS)
        dw = conv.conv2d_weight_gradient(x, y, window=(3, 3), **PARAMS)
        results.append((y.tobytes(), dx.tobytes(), dw.tobytes()))
    assert len(set(results)) == 1
    with reference():
        np.testing.assert_allclose(y, conv.conv2d(x, w, **PARAMS), rtol=0, atol=1e-5)


@pytest.mark.parametrize("plan", ["im2col", "chosen"])
@pytest.mark.parametrize("window", [1, 3])
def test_float32_error_against_float64(rng, monkeypatch, window, plan):
    if plan == "im2col":
        monkeypatch.setattr(conv, "choose_convolution", lambda *_: plan)
    x = rng.standard_normal((4, 9, 9, 32))
    w = rng.standard_normal((window, window, 32, 16))
    params = {**PARAMS, "padding": (window // 2,) * 2}
    exact = conv.conv2d(x, w, **params)
    with ran() as log:
        y = conv.conv2d(x.astype(np.float32), w.astype(np.float32), **params)
    assert log == [("conv2d", TWIN)]
    error = np.sqrt(((y - exact) ** 2).mean() / (exact**2).mean())
    assert error < tolerances.CONV32


def test_for_each_runs_everything_and_raises_the_first_error():
    done: list[int] = []
    parallel.for_each(done.append, 20)
    assert sorted(done) == list(range(20))
    parallel.for_each(done.append, 0)

    def fail(i: int) -> None:
        raise ValueError(f"part {i}")

    with pytest.raises(ValueError, match="part 0"):
        parallel.for_each(fail, 3)
