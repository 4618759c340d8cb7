"""Convolutions from columns in the cache: any window at any size, guards, threads, errors."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from minires.kernels import bf16, conv, direct
from minires.kernels.dispatch import reference
from minires.kernels.im2col import output_size
from minires.kernels.isa import ISA
from minires.kernels.memory import set_threads
from minires.kernels.precision import operands
from tests import tolerances

__all__: list[str] = []

pytestmark = pytest.mark.skipif(not ISA.width, reason="plain code has no vector kernels")
NAMES = "y", "dx", "dw"


def all_three(module: Any, x: Any, w: Any, g: Any, params: Any) -> list[np.ndarray]:
    """y, dx, dw"""
    names = ("conv2d", "conv2d_input_gradient", "conv2d_weight_gradient")
    forward, back, weights = (getattr(module, n) for n in (module.__all__, names)[module is conv])
    return [
        forward(x, w, **params),
        back(g, w, size=x.shape[1:3], **params),
        weights(x, g, window=w.shape[:2], **params),
    ]


def draw(
    rng: Any,
    x: Any,
    w: Any,
    stride: Any = (1, 1),
    padding: Any = (0, 0),
    dilation: Any = (1, 1),
    groups: int = 1,
) -> Any:
    """Random x, w, g, each in a buffer whose other numbers are NaN, and the parameters."""
    places = zip(x[1:3], w[:2], stride, padding, dilation)
    g = (x[0], *(output_size(*place) for place in places), w[3])
    arrays = []
    for shape in (x, w, g):
        buffer = np.full(np.prod(shape) + 128, np.nan, np.float32)
        arrays.append(buffer[64:-64].reshape(shape))
        arrays[-1][...] = rng.standard_normal(shape)
    params = {"stride": stride, "padding": padding, "dilation": dilation, "groups": groups}
    return *arrays, params


def check(x: Any, w: Any, g: Any, params: Any) -> None:
    exact = [a.astype(np.float64) for a in (x, w, g)]
    with reference():
        expected = all_three(conv, *exact, params)
    for name, got, y in zip(NAMES, all_three(direct, x, w, g, params), expected):
        assert got.shape == y.shape
        assert got.dtype == np.float32
        error = np.sqrt(((got - y) ** 2).sum() / ((y**2).sum() or 1))
        assert error < tolerances.CONV32, f"{name} of x={x.shape}, w={w.shape}, {params}"


@pytest.mark.parametrize("block", range(7))
def test_every_channel_count(rng, block):
    """1 … 70, each as input and as output."""
    for c in range(10 * block + 1, 10 * block + 11):
        check(*draw(rng, (1 + c % 3, 5, 6, c), (3, 2, c, 71 - c), (2, 1), (1, 1)))
        check(*draw(rng, (1 + c % 2, 4, 6, c), (1, 1, c, 71 - c)))


def test_every_number_of_pixels(rng):
    for pixels in range(1, 60):
        check(*draw(rng, (1, 1, pixels, 16), (1, 1, 16, 16)))
        check(*draw(rng, (1 + pixels % 2, pixels, 2, 3), (3, 3, 3, 20), padding=(1, 1)))


@pytest.mark.parametrize("first", [1, 12, 23])
def test_every_size(rng, first):
    """1 … 33, high and wide; batches of 1 … 5; channels and windows change along."""
    for size in range(first, first + 11):
        image = (1 + size % 5, size, 34 - size)
        check(*draw(rng, (*image, size), (3, 3, size, 9), (2, 2), (1, 1)))
        check(*draw(rng, (*image, 5), (2, 4, 5, size), (1, 2), (1, 2)))
        check(*draw(rng, (*image, 17), (1, 1, 17, size), (1 + size % 2,) * 2))


pairs = st.tuples(st.integers(1, 3), st.integers(1, 3))


@settings(max_examples=150)
@given(
    st.tuples(st.integers(1, 5), st.integers(1, 20), st.integers(1, 20), st.integers(1, 80)),
    st.tuples(st.integers(1, 5), st.integers(1, 5), st.integers(1, 140)),
    pairs,
    st.tuples(st.integers(0, 3), st.integers(0, 3)),
    pairs,
)
def test_any_parameters(x, window, stride, padding, dilation):
    r, s, k = window
    for size, taps, i in ((x[1], r, 0), (x[2], s, 1)):
        assume(output_size(size, taps, stride[i], padding[i], dilation[i]) > 0)
    rng = np.random.default_rng(sum(x))
    check(*draw(rng, x, (r, s, x[3], k), stride, padding, dilation))


@settings(max_examples=100)
@given(
    st.tuples(st.integers(1, 5), st.integers(1, 12), st.integers(1, 12)),
    st.tuples(st.integers(1, 3), st.integers(1, 3)),
    st.tuples(st.integers(1, 40), st.integers(1, 40), st.integers(2, 12)),
    pairs,
    st.tuples(st.integers(0, 3), st.integers(0, 3)),
)
def test_any_groups(image, window, channels, stride, padding):
    """Bundles of narrow groups, wide groups, and numbers of groups that no bundle divides."""
    c, k, groups = channels
    for size, taps, i in ((image[1], window[0], 0), (image[2], window[1], 1)):
        assume(output_size(size, taps, stride[i], padding[i]) > 0)
    rng = np.random.default_rng(sum(channels))
    w = (*window, c, groups * k)
    check(*draw(rng, (*image, groups * c), w, stride, padding, groups=groups))


@pytest.mark.parametrize("c", [64, 512])
def test_error_of_deep_sums(rng, c):
    check(*draw(rng, (3, 9, 9, c), (3, 3, c, 64), (2, 2), (1, 1)))
    check(*draw(rng, (5, 14, 14, c), (1, 1, c, 64)))


@pytest.mark.parametrize(
    ("c", "k", "window", "groups"),
    [(16, 16, 1, 1), (20, 70, 3, 1), (64, 144, 1, 1), (24, 48, 3, 6), (80, 160, 1, 2)],
)
def test_any_number_of_threads_gives_the_same_bits(
    rng, thread_counts, monkeypatch, c, k, window, groups
):
    """The work is cut for so many threads; with at least two of them it also runs on two."""
    case = draw(rng, (5, 13, 13, c), (window, window, c // groups, k), groups=groups)
    results = []
    for count in thread_counts:
        set_threads(count)
        results.append(b"".join(a.tobytes() for a in all_three(direct, *case)))
    for count in (2, 3, 7, 16):
        monkeypatch.setattr(direct, "threads", lambda count=count: count)
        results.append(b"".join(a.tobytes() for a in all_three(direct, *case)))
    assert len(set(results)) == 1


@pytest.mark.parametrize(
    ("x", "w", "stride", "padding", "groups"),
    [
        ((1, 1, 1, 1), (1, 1, 1, 1), (1, 1), (0, 0), 1),
        ((3, 9, 10, 17), (3, 3, 17, 33), (2, 2), (1, 1), 1),
        ((2, 13, 5, 64), (1, 1, 64, 129), (1, 1), (0, 0), 1),
        ((2, 13, 5, 30), (1, 1, 30, 64), (1, 1), (0, 0), 1),
        ((2, 30, 15, 3), (7, 7, 3, 64), (2, 2), (3, 3), 1),
        ((2, 9, 10, 20), (3, 3, 4, 25), (2, 1), (1, 1), 5),
        ((2, 13, 5, 60), (1, 1, 20, 99), (1, 1), (0, 0), 3),
        ((2, 13, 5, 32), (1, 1, 16, 64), (1, 1), (0, 0), 2),
    ],
)
def test_nothing_is_written_outside(rng, monkeypatch, guards, x, w, stride, padding, groups):
    guards.surround(direct)
    monkeypatch.setattr(direct, "threads", lambda: 3)
    check(*draw(rng, x, w, stride, padding, groups=groups))
    assert len(guards.wholes) >= 9
    guards.check()


@pytest.mark.parametrize("groups", [1, 4])
def test_gradients_are_adjoint(rng, groups):
    shapes = (3, 11, 8, 24), (3, 3, 24 // groups, 40)
    x, w, g, params = draw(rng, *shapes, (2, 2), (1, 1), groups=groups)
    y, dx, dw = (a.astype(np.float64) for a in all_three(direct, x, w, g, params))
    size = np.linalg.norm(g.astype(np.float64)) * np.linalg.norm(y)
    assert abs(np.vdot(g, y) - np.vdot(dx, x)) < tolerances.CONV32 * size
    assert abs(np.vdot(g, y) - np.vdot(dw, w)) < tolerances.CONV32 * size


@pytest.mark.skipif(not bf16.AVAILABLE, reason="this CPU has no AVX512_BF16")
@pytest.mark.parametrize("c", [1, 2, 3, 15, 16, 31, 64])
@pytest.mark.parametrize("groups", [1, 2])
def test_bf16_operands(rng, c, groups):
    """As the convolution of the rounded numbers, every remainder of pairs among them."""
    for window, stride, pixels in (((3, 3), (2, 1), 9), ((1, 1), (1, 1), 7), ((1, 1), (2, 2), 6)):
        shape = (3, pixels, pixels + c % 2, c * groups)
        x, w, g, params = draw(rng, shape, (*window, c, 21 * groups), stride, groups=groups)
        rounded = [bf16.rounded(a).astype(np.float64) for a in (x, w, g)]
        with reference():
            expected = all_three(conv, *rounded, params)
        with operands("bf16"):
            results = all_three(direct, x, w, g, params)
        for name, got, y in zip(NAMES, results, expected):
            error = np.sqrt(((got - y) ** 2).sum() / (y**2).sum())
            assert error < tolerances.CONV32, f"{name} of x={x.shape}, w={w.shape}, {params}"
        exact = all_three(direct, x, w, g, params)
        assert not any((a == b).all() for a, b in zip(results, exact))
