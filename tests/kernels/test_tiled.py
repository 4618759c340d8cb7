"""Convolutions of bf16 operands on the matrix unit, and its products, against array code."""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from llvmlite import binding as llvm

from minires.kernels import amx, bf16, conv, tiled
from minires.kernels.dispatch import ran, reference
from minires.kernels.im2col import output_size
from minires.kernels.memory import set_threads
from minires.kernels.precision import operands
from tests import tolerances
from tests.kernels.test_bf16 import at, halves
from tests.kernels.test_direct import NAMES, draw

__all__: list[str] = []

needs_unit = pytest.mark.skipif(not amx.available(), reason="this CPU has no AMX for bf16")
GUARD = np.float32(-7.5)


def all_three(x: Any, w: Any, g: Any, params: Any) -> list[np.ndarray]:
    """y, dx, dw"""
    return [
        tiled.convolve(x, w, **params),
        tiled.convolve_input_gradient(g, w, size=x.shape[1:3], **params),
        tiled.convolve_weight_gradient(x, g, window=w.shape[:2], **params),
    ]


def drawn(rng: Any, *shapes: Any, **more: Any) -> Any:
    """x, w, g, and the parameters of one group."""
    x, w, g, params = draw(rng, *shapes, **more)
    del params["groups"]
    return x, w, g, params


def check(x: Any, w: Any, g: Any, params: Any) -> None:
    """As the convolution of the rounded numbers."""
    x64, w64, g64 = (bf16.rounded(a).astype(np.float64) for a in (x, w, g))
    with reference():
        expected = [
            conv.conv2d(x64, w64, **params, groups=1),
            conv.conv2d_input_gradient(g64, w64, size=x.shape[1:3], **params, groups=1),
            conv.conv2d_weight_gradient(x64, g64, window=w.shape[:2], **params, groups=1),
        ]
    for name, got, y in zip(NAMES, all_three(x, w, g, params), expected):
        assert got.shape == y.shape
        assert got.dtype == np.float32
        error = np.sqrt(((got - y) ** 2).sum() / ((y**2).sum() or 1))
        assert error < tolerances.CONV32, f"{name} of x={x.shape}, w={w.shape}, {params}"


@needs_unit
@pytest.mark.parametrize("block", range(7))
def test_every_channel_count(rng, block):
    """1 … 70, each as input and as output."""
    for c in range(10 * block + 1, 10 * block + 11):
        check(*drawn(rng, (1 + c % 3, 5, 6, c), (3, 2, c, 71 - c), stride=(2, 1), padding=(1, 1)))
        check(*drawn(rng, (1 + c % 2, 4, 6, c), (1, 1, c, 71 - c)))


@needs_unit
def test_every_number_of_pixels(rng):
    for pixels in [*range(1, 70), 255, 256, 257, 1025, 2049, 4097, 5000]:
        check(*drawn(rng, (1, 1, pixels, 16), (1, 1, 16, 16)))
        check(*drawn(rng, (1, pixels, 2, 33), (3, 3, 33, 20), padding=(1, 1)))


@needs_unit
@pytest.mark.parametrize("first", [1, 12, 23])
def test_every_size(rng, first):
    """1 … 33, high and wide; batches of 1 … 5; channels and windows change along."""
    for size in range(first, first + 11):
        image = (1 + size % 5, size, 34 - size)
        check(*drawn(rng, (*image, size), (3, 3, size, 9), stride=(2, 2), padding=(1, 1)))
        check(*drawn(rng, (*image, 5), (2, 4, 5, size), stride=(1, 2), padding=(1, 2)))
        check(*drawn(rng, (*image, 17), (1, 1, 17, size), stride=(1 + size % 2,) * 2))


pairs = st.tuples(st.integers(1, 3), st.integers(1, 3))


@needs_unit
@settings(max_examples=100)
@given(
    st.tuples(st.integers(1, 5), st.integers(1, 20), st.integers(1, 20), st.integers(1, 80)),
    st.tuples(st.integers(1, 5), st.integers(1, 5), st.integers(1, 140)),
    pairs,
    st.tuples(st.integers(0, 5), st.integers(0, 5)),
    pairs,
)
def test_any_parameters(x, window, stride, padding, dilation):
    """Padding wider than the window among them."""
    r, s, k = window
    for size, taps, i in ((x[1], r, 0), (x[2], s, 1)):
        assume(output_size(size, taps, stride[i], padding[i], dilation[i]) > 0)
    rng = np.random.default_rng(sum(x))
    shapes = x, (r, s, x[3], k)
    check(*drawn(rng, *shapes, stride=stride, padding=padding, dilation=dilation))


@needs_unit
@pytest.mark.parametrize("c", [64, 512])
def test_deep_sums(rng, c):
    """A depth of several panels in the cache."""
    check(*drawn(rng, (3, 9, 9, c), (3, 3, c, 96), padding=(1, 1)))
    check(*drawn(rng, (3, 9, 9, 96), (3, 3, 96, c), stride=(2, 2), padding=(1, 1)))


@needs_unit
@pytest.mark.parametrize(("c", "k", "window"), [(16, 16, 1), (20, 70, 3), (64, 144, 1)])
@pytest.mark.parametrize("stride", [1, 2])
def test_any_number_of_threads_gives_the_same_bits(
    rng, thread_counts, monkeypatch, c, k, window, stride
):
    """The work is cut for so many threads; with at least two of them it also runs on two."""
    case = drawn(rng, (9, 13, 13, c), (window, window, c, k), stride=(stride, stride))
    results = []
    for count in thread_counts:
        set_threads(count)
        results.append(b"".join(a.tobytes() for a in all_three(*case)))
    for count in (2, 3, 7, 16):
        monkeypatch.setattr(tiled, "threads", lambda count=count: count)
        results.append(b"".join(a.tobytes() for a in all_three(*case)))
    assert len(set(results)) == 1


@needs_unit
@pytest.mark.parametrize("stride", [(1, 1), (2, 2)])
def test_gradients_are_adjoint(rng, stride):
    """Of numbers that rounding does not change."""
    *arrays, params = drawn(rng, (3, 11, 8, 24), (3, 3, 24, 40), stride=stride, padding=(1, 1))
    x, w, g = map(bf16.rounded, arrays)
    y, dx, dw = (a.astype(np.float64) for a in all_three(x, w, g, params))
    size = np.linalg.norm(g.astype(np.float64)) * np.linalg.norm(y)
    assert abs(np.vdot(g, y) - np.vdot(dx, x)) < tolerances.CONV32 * size
    assert abs(np.vdot(g, y) - np.vdot(dw, w)) < tolerances.CONV32 * size


@needs_unit
def test_the_plan_comes_here(rng):
    """With bias, residual and ReLU, and packed weights that are found again."""
    x, w, g, params = drawn(rng, (5, 16, 16, 32), (3, 3, 32, 40), stride=(2, 2), padding=(1, 1))
    b, packed = rng.standard_normal(40).astype(np.float32), {}
    x64, w64 = (bf16.rounded(a).astype(np.float64) for a in (x, w))
    with reference():
        want = conv.conv2d(x64, w64, b, g, **params, groups=1, relu=True)
    with operands("bf16"), ran() as log:
        results = [
            conv.conv2d(x, w, b, g, **params, groups=1, relu=True, packed=packed) for _ in range(2)
        ]
        dx = conv.conv2d_input_gradient(g, w, x, size=(16, 16), **params, groups=1)
    assert log == [("conv2d", "cpu")] * 2 + [("conv2d_input_gradient", "cpu")]
    assert list(packed) == ["tiled"]
    assert (results[0] == results[1]).all()
    np.testing.assert_allclose(results[0], want, rtol=0, atol=1e-5)
    without = tiled.convolve_input_gradient(g, w, size=(16, 16), **params)
    np.testing.assert_array_equal(dx, without + x)


@needs_unit
@pytest.mark.parametrize(("rows", "columns"), [(1, 16), (16, 32), (17, 16), (33, 32), (50, 32)])
@pytest.mark.parametrize("depth", [16, 256, 272, 528])
def test_product(rng, rows, columns, depth):
    """Rows are computed 16 at a time, nothing is written beyond them; and sums go on."""
    whole = -(-rows // 16) * 16
    a = rng.standard_normal((whole, 2 * depth)).astype(np.float32)
    b = rng.standard_normal((2 * depth, columns)).astype(np.float32)
    want = bf16.rounded(a).astype(float) @ bf16.rounded(b).astype(float)
    c = np.full((whole + 3, columns + 5), GUARD)

    @numba.njit
    def run(a, b, c, rows, columns, depth, c_row):
        bf16.round_rows(a, 8 * depth, (rows + 15) // 16 * 16, 2 * depth)
        bf16.pair_rows(b, 4 * columns, 2 * depth, columns)
        sizes = depth, 8 * depth, 128 * depth, 64, c_row
        amx.open_tiles()
        amx.multiply_tiles(False, rows, columns, a, b, c, *sizes)
        amx.multiply_tiles(True, rows, columns, a, b, c, *sizes)
        amx.close_tiles()

    run(at(a), at(b), at(c), rows, columns, depth, c.strides[0])
    np.testing.assert_allclose(c[:whole, :columns], 2 * want, rtol=0, atol=2e-4)
    assert (c[whole:] == GUARD).all()
    assert (c[:, columns:] == GUARD).all()


@needs_unit
@pytest.mark.parametrize("rows", [1, 2, 15, 31, 32, 40])
@pytest.mark.parametrize("count", [1, 15, 16])
def test_transposed_pairs_of_rows(rng, rows, count):
    x = np.full((40, 20), np.nan, np.float32)
    x[: min(rows, 32), :count] = rng.standard_normal((min(rows, 32), count))
    to = np.full(300, GUARD)

    @numba.njit
    def run(to, x, rows, count):
        amx.pair_tile(to, x, 80, rows, count)

    run(at(to), at(x), rows, count)
    got = halves(to[:256]).reshape(16, 32)
    want = np.zeros((16, 32), np.float32)
    want[:count, : min(rows, 32)] = bf16.rounded(x[: min(rows, 32), :count]).T
    np.testing.assert_array_equal(got, want)
    assert (to[256:] == GUARD).all()


@needs_unit
@pytest.mark.parametrize("rows", [1, 15, 16])
@pytest.mark.parametrize("count", [1, 2, 15, 16, 17, 31, 32])
def test_transposed_pairs_of_neighbours(rng, rows, count):
    x = np.full((16, 40), np.nan, np.float32)
    x[:rows, :count] = rng.standard_normal((rows, count))
    lines = (count + 1) // 2
    to = np.full((20, 18), GUARD)

    @numba.njit
    def run(to, x, lines, rows, count):
        amx.pair_square(to, 72, lines, x, 160, rows, count)

    run(at(to), at(x), lines, rows, count)
    got = halves(np.ascontiguousarray(to[:lines, :16])).reshape(lines, 16, 2)
    want = np.zeros((16, 2 * lines), np.float32)
    want[:rows, :count] = bf16.rounded(x[:rows, :count])
    np.testing.assert_array_equal(got, want.reshape(16, lines, 2).transpose(1, 0, 2))
    assert (to[lines:] == GUARD).all()
    assert (to[:, 16:] == GUARD).all()


@needs_unit
@pytest.mark.parametrize(("rows", "count"), [(1, 1), (3, 16), (16, 5), (16, 16)])
def test_transposed_sums(rng, rows, count):
    x = rng.standard_normal((16, 32)).astype(np.float32)
    to = np.full((18, 20), GUARD)

    @numba.njit
    def run(to, rows, count, x, add):
        amx.transpose_tile(to, 80, rows, count, x, 128, add)

    for times in (1, 2):
        run(at(to), rows, count, at(x), int(times > 1))
        np.testing.assert_array_equal(to[:rows, :count], times * x[:count, :rows].T)
        assert (to[rows:] == GUARD).all()
        assert (to[:, count:] == GUARD).all()


def test_not_every_machine_has_the_unit(monkeypatch):
    find = amx.available.__wrapped__
    have = dict.fromkeys(["amx-bf16", "amx-tile"], True)
    monkeypatch.setattr(bf16, "AVAILABLE", True)
    for features in ({}, {**have, "amx-tile": False}):
        monkeypatch.setattr(llvm, "get_host_cpu_features", lambda features=features: features)
        assert not find()
    monkeypatch.setattr(llvm, "get_host_cpu_features", lambda: have)
    monkeypatch.setattr(amx.platform, "machine", lambda: "aarch64")
    assert not find()
    monkeypatch.undo()
    monkeypatch.setattr(bf16, "AVAILABLE", False)  # held down
    assert not find()
