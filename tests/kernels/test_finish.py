"""Bias, residual and ReLU in the output of every convolution algorithm, and kept packed weights."""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minires.kernels import conv, direct, winograd
from minires.kernels.dispatch import ran, reference
from minires.kernels.isa import ISA
from minires.kernels.memory import set_threads, threads
from tests import tolerances

__all__: list[str] = []

PARAMS = {"stride": (1, 1), "padding": (1, 1), "dilation": (1, 1), "groups": 1}
PLANS = ["im2col", "direct", "winograd"] if ISA.width else ["im2col"]
plans = pytest.mark.parametrize("plan", PLANS)


def run(plan: str, *arrays: Any, **params: Any) -> np.ndarray:
    """conv2d by that algorithm."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(conv, "choose_convolution", lambda *_: plan)
        with ran() as log:
            y = conv.conv2d(*arrays, **{**PARAMS, **params})
    assert log == [("conv2d", "cpu")]
    return y


def draw(rng: Any, n: int, h: int, w: int, c: int, k: int) -> list[np.ndarray]:
    """Random x, w, bias and residual, each in a buffer whose other numbers are NaN."""
    arrays = []
    for shape in ((n, h, w, c), (3, 3, c, k), (k,), (n, h, w, k)):
        buffer = np.full(np.prod(shape) + 128, np.nan, np.float32)
        arrays.append(buffer[64:-64].reshape(shape))
        arrays[-1][...] = rng.standard_normal(shape)
    return arrays


def check(plan: str, x: Any, w: Any, b: Any, residual: Any, relu: bool) -> np.ndarray:
    """Against the reference in float64."""
    exact = [a if a is None else a.astype(np.float64) for a in (x, w, b, residual)]
    with reference():
        expected = conv.conv2d(*exact, relu=relu, **PARAMS)
    y = run(plan, x, w, b, residual, relu=relu)
    error = np.sqrt(((y - expected) ** 2).sum() / ((expected**2).sum() or 1))
    assert error < tolerances.WINOGRAD32
    assert y.dtype == np.float32
    return y


@plans
@settings(max_examples=60)
@given(
    st.tuples(st.integers(1, 3), st.integers(1, 14), st.integers(1, 14)),
    st.tuples(st.integers(1, 140), st.integers(1, 140)),
    st.tuples(st.booleans(), st.booleans(), st.booleans()),
)
def test_any_shape(plan, images, channels, parts):
    x, w, b, residual = draw(np.random.default_rng(sum(images)), *images, *channels)
    check(plan, x, w, b if parts[0] else None, residual if parts[1] else None, parts[2])


@plans
@pytest.mark.parametrize("k", range(1, 71))
def test_every_number_of_outputs(rng, plan, k):
    check(plan, *draw(rng, 2, 5, 6, 3, k), relu=k % 2 == 0)


@plans
@pytest.mark.parametrize("k", [16, 48, 144])
@pytest.mark.parametrize("parts", list(product((True, False), repeat=3)))
def test_whole_vectors_and_tiles(rng, plan, k, parts):
    """Which Winograd writes past the caches."""
    x, w, b, residual = draw(rng, 6, 12, 16, 5, k)
    check(plan, x, w, b if parts[0] else None, residual if parts[1] else None, parts[2])


@plans
@pytest.mark.parametrize(("size", "k"), [((13, 13), 70), ((12, 12), 64)])
def test_any_number_of_threads_gives_the_same_bits(rng, monkeypatch, plan, size, k):
    arrays = draw(rng, 5, *size, 20, k)
    before, results = threads(), []
    for count in sorted({1, before}):
        set_threads(count)
        results.append(run(plan, *arrays, relu=True).tobytes())
    for count, module in product((2, 3, 7, 16), (winograd, direct)):
        monkeypatch.setattr(module, "threads", lambda count=count: count)
        results.append(run(plan, *arrays, relu=True).tobytes())
    set_threads(before)
    assert len(set(results)) == 1


@plans
@pytest.mark.parametrize("shape", [(1, 1, 1, 1, 1), (3, 9, 10, 17, 33), (2, 13, 5, 70, 129)])
def test_nothing_is_written_outside(rng, guards, plan, shape):
    guards.surround(conv, winograd, direct)
    check(plan, *draw(rng, *shape), relu=True)
    guards.check()


@plans
def test_relu_keeps_nan_and_clamps_infinity(rng, plan):
    x, w, b, residual = draw(rng, 1, 6, 6, 3, 21)
    residual[0, 2, 3, 4], residual[0, 2, 3, 20], b[7] = np.nan, np.nan, -np.inf
    y = run(plan, x, w, b, residual, relu=True)
    assert np.isnan(y[0, 2, 3, [4, 20]]).all()
    assert np.isnan(y).sum() == 2
    assert (y[..., 7] == 0).all()


@plans
def test_views_and_read_only_arrays(rng, plan):
    arrays = draw(rng, 2, 8, 8, 6, 10)
    views = [np.stack([a, a], axis=-1)[..., 0] for a in arrays]
    for view in views:
        view.flags.writeable = False
    assert run(plan, *views, relu=True).tobytes() == run(plan, *arrays, relu=True).tobytes()


@plans
def test_packed_weights_are_kept_and_used(rng, plan):
    x, w, b, residual = draw(rng, 4, 8, 8, 20, 30)
    packed: dict[str, Any] = {}
    expected = run(plan, x, w, b, residual, packed=packed)
    assert list(packed) == ([] if plan == "im2col" else [plan])
    w[...] = np.nan if packed else w  # nobody reads them again
    assert run(plan, x, w, b, residual, packed=packed).tobytes() == expected.tobytes()
    assert np.isfinite(run(plan, x[:1, :5], w, b, None, packed=packed)).all()
