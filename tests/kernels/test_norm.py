"""BatchNorm kernels: every remainder of rows, statistics that do not cancel, any number of
threads."""

from __future__ import annotations

import math

import numba
import numpy as np
import pytest

from minires.kernels import memory, norm
from minires.kernels.dispatch import ran
from minires.kernels.memory import set_threads
from tests.gpu.everywhere import TWIN
from tests.tolerances import PRODUCT32

__all__: list[str] = []

SHAPES = [(16, 1), (48, 3), (64, 5), (1, 16), (3, 16), (63, 32), (65, 64), (1024, 16), (1040, 17)]
SHAPES += [(16 * 64 - 1, 16), (16 * 64 + 1, 48), (2500, 80), (37, 304), (2, 3, 5, 528)]
JIT = not numba.config.DISABLE_JIT
twins = pytest.mark.skipif(not JIT, reason="the twins are compiled")


def draw(rng, shape, count):
    """`count` float32 arrays with guard values after them, so that writing too far shows."""
    size = math.prod(shape)
    stored = [np.append(rng.standard_normal(size), np.full(64, 7)) for _ in range(count)]
    return [a.astype(np.float32)[:size].reshape(shape) for a in stored]


def parameters(rng, c):
    return rng.standard_normal((2, c)).astype(np.float32)


def close(fast, slow):
    for f, s in zip(fast, slow, strict=True):
        assert (f is None) == (s is None)
        if f is not None:
            assert (f.shape, f.dtype) == (s.shape, s.dtype)
            np.testing.assert_allclose(f, s, rtol=PRODUCT32, atol=PRODUCT32)


@twins
@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("relu", [False, True])
@pytest.mark.parametrize("with_residual", [False, True])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_twins_agree_with_the_references(rng, monkeypatch, shape, with_residual, relu, stream):
    monkeypatch.setattr(norm, "STREAM", 0 if stream else 1 << 40)
    x, g, residual = draw(rng, shape, 3)
    gamma, beta = parameters(rng, shape[-1])
    added = residual if with_residual else None
    with ran() as log:
        fast = norm.normalise_batch(x, gamma, beta, added, eps=1e-5, relu=relu)
    slow = norm.normalise_batch.reference(x, gamma, beta, added, eps=1e-5, relu=relu)
    assert log == [("normalise_batch", TWIN)]
    close(fast, slow)
    y, mean, var = slow
    scale, shift = norm.line(gamma, beta, mean, var, 1e-5)
    close(
        [norm.normalise(x, scale, shift, added, relu=relu)],
        [norm.normalise.reference(x, scale, shift, added, relu=relu)],
    )
    signs = y if relu and with_residual else None
    for from_batch in (True, False):
        given = (g, x, gamma, beta, mean, var, signs)
        with ran() as log:
            fast = norm.normalise_gradient(*given, relu=relu, from_batch=from_batch)
        assert log == [("normalise_gradient", TWIN)]
        close(fast, norm.normalise_gradient.reference(*given, relu=relu, from_batch=from_batch))


@twins
def test_outputs_end_where_they_should(rng):
    """Rows on both sides of the output keep what they held, also when written past the cache."""
    x = rng.standard_normal((3, 4096, 16)).astype(np.float32)
    held = memory.zeros((3, 4096, 16), np.float32)
    table = np.ones((3, 16), np.float32)
    for stream in (False, True):
        held[...] = 7
        places = (memory.address(x[1]), memory.address(held[1]))
        norm.loops.normalise(places[0], 4096, table, 0, places[1], stream, 2)
        assert (held[0] == 7).all()
        assert (held[2] == 7).all()
        np.testing.assert_array_equal(held[1], np.maximum(x[1] + 1, 1))


def test_rows_that_make_no_whole_vectors_go_to_the_reference(rng):
    x = rng.standard_normal((5, 3)).astype(np.float32)
    with ran() as log:
        norm.normalise(x, np.ones(3), np.zeros(3), None, relu=True)
    assert log == [("normalise", "reference")]


@pytest.mark.parametrize("offset", [0, 100, 10_000])
def test_float32_statistics_do_not_cancel(rng, offset):
    """E[x²] - E[x]² would lose all digits here: the mean is up to 10,000 deviations away."""
    x = (rng.standard_normal((5000, 4)) + offset).astype(np.float32)
    ones, zeros = np.ones(4, np.float32), np.zeros(4, np.float32)
    _, mean, var = norm.normalise_batch(x, ones, zeros, None, eps=1e-5, relu=False)
    np.testing.assert_allclose(mean, x.astype(np.float64).mean(axis=0), rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(var, x.astype(np.float64).var(axis=0), rtol=2e-5)


@twins
@pytest.mark.parametrize("shape", [(3001, 16), (3008, 7), (1024, 3), (4, 32)])
def test_results_do_not_depend_on_the_number_of_threads(rng, thread_counts, shape):
    x, g = draw(rng, shape, 2)
    gamma, beta = parameters(rng, shape[-1])
    results = set()
    for count in thread_counts:
        set_threads(count)
        y, mean, var = norm.normalise_batch(x, gamma, beta, g, eps=1e-5, relu=True)
        found = [y, mean, var]
        for signs in (None, y):
            given = (g, x, gamma, beta, mean, var, signs)
            found += norm.normalise_gradient(*given, relu=True, from_batch=True)
        results.add(b"".join(a.tobytes() for a in found if a is not None))
    assert len(results) == 1


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_gradient_passes_exactly_where_the_output_is_positive(rng, dtype):
    """The sign of the ReLU's input is found again: by the same roundings, also close to zero."""
    x = rng.standard_normal((4096, 16)).astype(dtype)
    gamma, beta = rng.standard_normal((2, 16)).astype(dtype)
    beta = -gamma * x[7]  # the output is nearly zero in one row …
    mean, var = np.zeros(16), np.full(16, 1 - 1e-5)
    scale, shift = norm.line(gamma, beta, mean, var, 1e-5)
    x[100:200] = -shift / scale  # … and in these, after rounding
    y = norm.normalise(x, scale, shift, None, relu=True)
    g = np.ones_like(x)
    dx, *_ = norm.normalise_gradient(g, x, gamma, beta, mean, var, relu=True, from_batch=False)
    np.testing.assert_array_equal(dx != 0, y > 0)


@pytest.mark.parametrize("shape", [(16, 1), (3, 16), (5, 3)])
def test_relu_keeps_nan(shape):
    x = np.full(shape, 2, np.float32)
    x[0, 0], x[1, 0] = np.nan, -1
    y = norm.normalise(x, np.ones(shape[1]), np.zeros(shape[1]), None, relu=True)
    assert np.isnan(y[0, 0])
    assert y[1:3, 0].tolist() == [0, 2]
