"""Bias, residual and ReLU in the output of every convolution algorithm, and kept packed weights."""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minires.kernels import chunked, conv, direct, winograd
from minires.kernels.dispatch import ran, reference
from minires.kernels.isa import ISA
from minires.kernels.memory import set_threads
from tests import tolerances

__all__: list[str] = []

PARAMS = {"stride": (1, 1), "padding": (1, 1), "dilation": (1, 1), "groups": 1}
PLANS = ["im2col", "direct", "winograd", "polyphase"] if ISA.width else ["im2col"]
plans = pytest.mark.parametrize("plan", PLANS)


def strided(plan: str, array: Any) -> tuple[Any, dict[str, Any]]:
    """An array like the outputs, and the parameters, for an algorithm: one has a stride of 2."""
    if plan != "polyphase":
        return array, PARAMS
    return array if array is None else array[:, ::2, ::2], {**PARAMS, "stride": (2, 2)}


def run(plan: str, x: Any, w: Any, b: Any, residual: Any, **more: Any) -> np.ndarray:
    """conv2d by that algorithm."""
    residual, params = strided(plan, residual)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(conv, "choose_convolution", lambda *_: plan)
        with ran() as log:
            y = conv.conv2d(x, w, b, residual, **params, **more)
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
    part, params = strided(plan, residual)
    exact = [a if a is None else a.astype(np.float64) for a in (x, w, b, part)]
    with reference():
        expected = conv.conv2d(*exact, relu=relu, **params)
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
def test_any_number_of_threads_gives_the_same_bits(rng, thread_counts, monkeypatch, plan, size, k):
    arrays = draw(rng, 5, *size, 20, k)
    results = []
    for count in thread_counts:
        set_threads(count)
        results.append(run(plan, *arrays, relu=True).tobytes())
    for count, module in product((2, 3, 7, 16), (winograd, direct)):
        monkeypatch.setattr(module, "threads", lambda count=count: count)
        results.append(run(plan, *arrays, relu=True).tobytes())
    assert len(set(results)) == 1


@plans
@pytest.mark.parametrize("shape", [(1, 1, 1, 1, 1), (3, 9, 10, 17, 33), (2, 13, 5, 70, 129)])
def test_nothing_is_written_outside(rng, guards, plan, shape):
    guards.surround(chunked, winograd, direct)
    check(plan, *draw(rng, *shape), relu=True)
    guards.check()


@plans
def test_relu_keeps_nan_and_clamps_infinity(rng, plan):
    x, w, b, residual = draw(rng, 1, 6, 6, 3, 21)
    residual[0, 2, 2, 4], residual[0, 2, 2, 20], b[7] = np.nan, np.nan, -np.inf
    y = run(plan, x, w, b, residual, relu=True)
    at = 1 if plan == "polyphase" else 2
    assert np.isnan(y[0, at, at, [4, 20]]).all()
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


def check_total(plan: str, w: np.ndarray, g: np.ndarray, total: np.ndarray, **params: Any) -> None:
    """The input gradient by that algorithm added to `total`: it may lie anywhere, and is read."""
    size, kept = total.shape[1:3], total.copy()
    if not params:
        g, params = strided(plan, g)
    exact = [a.astype(np.float64) for a in (g, w, total)]
    with reference():
        expected = conv.conv2d_input_gradient(*exact, size=size, **{**PARAMS, **params})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(conv, "choose_convolution", lambda *_: plan)
        found = conv.conv2d_input_gradient(g, w, total, size=size, **{**PARAMS, **params})
        alone = conv.conv2d_input_gradient(g, w, size=size, **{**PARAMS, **params})
    error = np.sqrt(((found - expected) ** 2).sum() / ((expected**2).sum() or 1))
    assert error < tolerances.WINOGRAD32
    assert found.dtype == np.float32
    np.testing.assert_array_equal(total, kept)
    if plan in ("winograd", "polyphase"):  # the same sum as if it were added later
        np.testing.assert_array_equal(found, alone + total)


@plans
@settings(max_examples=60)
@given(
    st.tuples(st.integers(1, 3), st.integers(1, 14), st.integers(1, 14)),
    st.tuples(st.integers(1, 140), st.integers(1, 140)),
)
def test_an_input_gradient_adds_to_a_total(plan, images, channels):
    total, w, _, g = draw(np.random.default_rng(sum(images)), *images, *channels)
    check_total(plan, w, g, total)


@plans
@pytest.mark.parametrize("c", range(1, 71))
def test_an_input_gradient_adds_to_a_total_of_every_width(rng, plan, c):
    total, w, _, g = draw(rng, 2, 8, 5, c, 3)
    check_total(plan, w, g, total)


@pytest.mark.parametrize("plan", [p for p in PLANS if p in ("im2col", "direct")])
def test_an_input_gradient_with_a_stride_adds_to_a_total(rng, plan):
    total, w, _, g = draw(rng, 4, 20, 18, 16, 8)
    g = np.ascontiguousarray(g[:, ::2, ::2])
    check_total(plan, w, g, total, stride=(2, 2))
    check_total(plan, w[:1, :1], g, total, stride=(2, 2), padding=(0, 0))
    check_total(plan, w[:1, :1], *draw(rng, 4, 20, 18, 16, 8)[3:], total, padding=(0, 0))
    check_total(plan, w, g, total[:, ::-1].transpose(0, 1, 2, 3), stride=(2, 2))


@plans
def test_threads_do_not_change_a_total(rng, thread_counts, plan):
    total, w, _, g = draw(rng, 3, 17, 14, 40, 20)
    results = set()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(conv, "choose_convolution", lambda *_: plan)
        for count in thread_counts:
            set_threads(count)
            part, params = strided(plan, g)
            dx = conv.conv2d_input_gradient(part, w, total, size=total.shape[1:3], **params)
            results.add(dx.tobytes())
    assert len(results) == 1
