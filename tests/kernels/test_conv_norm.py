"""A convolution and its BatchNorm in one, and their gradients: as those of the kernels one after
another, however many images go together."""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
import pytest

from minires.kernels import conv_norm as module
from minires.kernels import norm, winograd
from minires.kernels.conv import conv2d
from minires.kernels.conv_norm import conv_norm, conv_norm_gradient
from minires.kernels.dispatch import ran, reference
from minires.kernels.isa import ISA
from minires.kernels.memory import set_threads
from tests import tolerances
from tests.tolerances import relative_rms

__all__: list[str] = []

compiled = pytest.mark.skipif(
    not ISA.width or numba.config.DISABLE_JIT,  # type: ignore[attr-defined]
    reason="plain code has no twin",
)
KNOWN: dict[str, Any] = {"stride": (1, 1), "padding": (1, 1), "dilation": (1, 1), "groups": 1}
KNOWN |= {"wants": (True, True), "relu": True, "from_batch": True}
# n, h, w, c, k
SHAPES = [(7, 8, 8, 16, 16), (5, 12, 9, 3, 32), (3, 16, 16, 70, 16), (9, 8, 8, 24, 48)]


@pytest.fixture(params=[(1, 1), (1, 3), (2, 2), (16, 99)], ids=str)
def together(request, monkeypatch) -> None:
    """Into how many parts the images are cut, and how many of a part go together: of 7, for
    example, 3 + 3 + 1 in one part, 2 + 1 and 2 + 2 in two, or each is a part."""
    parts, images = request.param
    monkeypatch.setattr(module, "PARTS", parts)
    monkeypatch.setattr(module, "_images_together", lambda s: images)


def draw(rng, n, h, w, c, k, with_residual=True, with_total=True) -> list[Any]:
    """float32 arguments; each is the middle of an array of NaN."""

    def numbers(*shape):
        buffer = np.full(np.prod(shape) + 128, np.nan, np.float32)
        buffer[64:-64] = rng.standard_normal(np.prod(shape))
        return buffer[64:-64].reshape(shape)

    outputs, images = (n, h, w, k), (n, h, w, c)
    arrays = [numbers(*shape) for shape in (outputs, outputs, images, (3, 3, c, k), (k,), (k,))]
    moments = [arrays[1].mean((0, 1, 2), np.float64), arrays[1].var((0, 1, 2), np.float64)]
    signs = numbers(*outputs) if with_residual else None
    return [*arrays, *moments, signs, numbers(*images) if with_total else None]


FORWARD: dict[str, Any] = {"padding": (1, 1), "dilation": (1, 1), "groups": 1}
FORWARD |= {"relu": True, "eps": 1e-5}
# n, h, w, c, k, stride: of 36 tiles, 65, 80; 40 of two by two outputs; and by channels
GATHERED = [
    (9, 8, 8, 16, 16, 1),
    (13, 4, 20, 70, 48, 1),
    (5, 16, 16, 3, 32, 1),
    (8, 16, 20, 20, 32, 2),
    (70, 4, 4, 400, 336, 1),
]


def draw_forward(rng, n, h, w, c, k, stride, mean=0.0) -> tuple[list[Any], dict[str, Any]]:
    """x, w, gamma, beta, a residual, in float32; the outputs' mean is some `mean` times their
    standard deviation."""
    shapes = (n, h, w, c), (3, 3, c, k), (k,), (k,), (n, h // stride, w // stride, k)
    arrays = [rng.standard_normal(shape).astype(np.float32) for shape in shapes]
    arrays[1][1, 1] += np.float32(mean)
    arrays[0] += np.float32(mean)
    return arrays, {**FORWARD, "stride": (stride, stride)}


@compiled
@pytest.mark.parametrize("shape", GATHERED, ids=str)
@pytest.mark.parametrize("mean", [0, 100])
def test_statistics_gathered_in_the_convolution(rng, shape, mean):
    """z to the last bit, its moments as exact as those of a pass of their own."""
    arrays, params = draw_forward(rng, *shape, mean=mean)
    with ran() as log:
        z, y, mean, var = conv_norm(*arrays, **params)
    assert log == [("conv_norm", "cpu")]
    known = {name: params[name] for name in ("stride", "padding", "dilation", "groups")}
    np.testing.assert_array_equal(z, conv2d(*arrays[:2], **known))
    rows = z.reshape(-1, z.shape[-1]).astype(np.float64)
    np.testing.assert_allclose(
        mean, rows.mean(0), rtol=0, atol=tolerances.MOMENTS32 * rows.std(0).min()
    )
    np.testing.assert_allclose(var, rows.var(0), rtol=tolerances.MOMENTS32)
    with reference():
        exact, *_ = norm.normalise_batch(z.astype(np.float64), *arrays[2:], eps=1e-5, relu=True)
    cancels = max(1, abs(rows.mean(0) / rows.std(0)).max())
    assert relative_rms(y, exact) <= tolerances.FOLDED32 * cancels


@compiled
@pytest.mark.parametrize("momentum", [0.1, None])
def test_running_statistics(rng, momentum):
    arrays, params = draw_forward(rng, *GATHERED[0])
    kept = [[np.zeros(16, np.float32), np.ones(16, np.float32), np.array(2)] for _ in range(2)]
    conv_norm(*arrays, *kept[0], **params, momentum=momentum)
    conv_norm.reference(*arrays, *kept[1], **params, momentum=momentum)
    for got, expected in zip(*kept, strict=True):
        np.testing.assert_allclose(got, expected, rtol=1e-6, atol=1e-6)  # deviations of 12
    assert kept[0][2] == 3


@compiled
@pytest.mark.parametrize("shape", GATHERED, ids=str)
def test_gathered_statistics_do_not_depend_on_the_threads(rng, thread_counts, monkeypatch, shape):
    (arrays, params), results = draw_forward(rng, *shape), set()
    for count in thread_counts:
        set_threads(count)
        results.add(b"".join(a.tobytes() for a in conv_norm(*arrays, **params)))
    for count in (2, 3, 16):
        monkeypatch.setattr(winograd, "threads", lambda count=count: count)
        results.add(b"".join(a.tobytes() for a in conv_norm(*arrays, **params)))
    assert len(results) == 1


@compiled
def test_gathering_writes_nothing_outside(rng, guards):
    guards.surround(winograd)
    for shape in GATHERED:
        arrays, params = draw_forward(rng, *shape)
        assert all(np.isfinite(a).all() for a in conv_norm(*arrays, **params))
    guards.check()


@compiled
def test_gathering_reads_arrays_of_any_strides(rng):
    arrays, params = draw_forward(rng, *GATHERED[0])
    expected = conv_norm(*arrays, **params)
    wide = [np.repeat(a, 2, axis=-1)[..., ::2] for a in arrays]
    for got, a in zip(conv_norm(*wide, **params), expected, strict=True):
        np.testing.assert_array_equal(got, a)


@compiled
def test_an_output_that_begins_within_a_cache_line(rng, monkeypatch):
    """Then the statistics have a pass of their own."""
    arrays, params = draw_forward(rng, *GATHERED[0])
    expected = conv_norm(*arrays, **params)

    def shifted(shape, dtype):
        whole = np.empty(np.prod(shape) + 64, dtype)
        first = (-whole.ctypes.data % 64 + 16) // 4
        return whole[first : first + np.prod(shape)].reshape(shape)

    monkeypatch.setattr(winograd, "empty", shifted)
    for got, a in zip(conv_norm(*arrays, **params), expected, strict=True):
        np.testing.assert_allclose(got, a, rtol=1e-5, atol=1e-5)


@compiled
@pytest.mark.parametrize(
    ("shape", "changes", "dtype"),
    [
        ((9, 8, 8, 16, 24, 1), {}, "float32"),  # one and a half cache lines
        ((9, 9, 8, 16, 16, 1), {}, "float32"),  # tiles stick out
        ((3, 8, 8, 16, 16, 1), {}, "float32"),  # too small for the pool
        ((9, 8, 8, 16, 16, 1), {}, "float64"),
        ((16, 8, 8, 16, 16, 1), {"groups": 4}, "float32"),
    ],
)
def test_what_has_a_pass_for_the_statistics(rng, shape, changes, dtype):
    arrays, params = draw_forward(rng, *shape)
    params |= changes
    arrays[1] = arrays[1][:, :, : 16 // params["groups"]]
    with ran() as log:
        conv_norm(*(a.astype(dtype) for a in arrays), **params)
    assert [name for name, _ in log] == ["conv_norm", "conv2d", "normalise_batch"]
    assert log[0][1] == "reference"


@compiled
@pytest.mark.parametrize("from_batch", [True, False])
@pytest.mark.parametrize(("with_residual", "with_total"), [(True, True), (False, False)])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_exact(rng, together, shape, with_residual, with_total, from_batch):
    arrays = draw(rng, *shape, with_residual, with_total)
    params = {**KNOWN, "from_batch": from_batch}
    with ran() as log:
        found = conv_norm_gradient(*arrays, **params)
    assert log == [("conv_norm_gradient", "cpu")]
    with reference():
        wide = [None if a is None else a.astype(np.float64) for a in arrays]
        exact = conv_norm_gradient(*wide, **params)
    limits = tolerances.WINOGRAD32, *[tolerances.WINOGRAD_WEIGHTS32] * 3, 0
    for got, expected, limit in zip(found, exact, limits, strict=True):
        assert (got is None) == (expected is None)
        if got is not None:
            assert got.dtype == np.float32
            assert relative_rms(got, expected) <= limit


@compiled
@pytest.mark.parametrize("with_residual", [True, False])
def test_all_but_the_weights_is_what_the_kernels_find(rng, together, with_residual):
    """To the last bit: no other sum depends on which images go together."""
    arrays = draw(rng, 7, 8, 12, 20, 32, with_residual)
    found = conv_norm_gradient(*arrays, **KNOWN)
    apart = conv_norm_gradient.reference(*arrays, **KNOWN)
    for position in (0, 2, 3, 4):
        np.testing.assert_array_equal(found[position], apart[position])


@compiled
def test_results_do_not_depend_on_the_number_of_threads(rng, thread_counts, together):
    arrays, results = draw(rng, 7, 8, 8, 16, 80), set()
    for count in thread_counts:
        set_threads(count)
        results.add(b"".join(a.tobytes() for a in conv_norm_gradient(*arrays, **KNOWN)))
    assert len(results) == 1


@compiled
def test_nothing_is_written_outside(rng, together, guards):
    guards.surround(module)
    for shape in SHAPES:
        found = conv_norm_gradient(*draw(rng, *shape), **KNOWN)
        assert all(np.isfinite(a).all() for a in found)
    guards.check()


@compiled
@pytest.mark.parametrize("strided", [False, True])
def test_arrays_of_any_strides(rng, together, strided):
    """Also arrays that do not begin at a cache line: those are never written past the caches."""
    arrays = draw(rng, 7, 8, 8, 16, 16)
    expected = conv_norm_gradient(*arrays, **KNOWN)
    for i, a in enumerate(arrays):
        wide = np.full((*a.shape[:-1], 2 * a.shape[-1] + 1), np.nan, a.dtype)
        wide[..., : 2 * a.shape[-1] : 2] = a
        arrays[i] = wide[..., : 2 * a.shape[-1] : 2] if strided else a.copy()
    for got, a in zip(conv_norm_gradient(*arrays, **KNOWN), expected, strict=True):
        np.testing.assert_array_equal(got, a)


@compiled
@pytest.mark.parametrize(
    ("changes", "shape", "dtype"),
    [
        ({"wants": (False, True)}, (5, 8, 8, 16, 16), "float32"),
        ({"wants": (True, False)}, (5, 8, 8, 16, 16), "float32"),
        ({}, (5, 8, 8, 16, 16), "float64"),
        ({}, (5, 9, 9, 16, 3), "float32"),  # rows of an image are no whole vectors
        ({}, (1, 4, 4, 16, 16), "float32"),  # no tiles to speak of
        ({}, (5, 8, 8, 128, 128), "float32"),  # the weight gradient has many sums
        ({}, (16, 8, 8, 384, 384), "float32"),  # threads take channels, not tiles
    ],
)
def test_what_goes_to_the_kernels_one_after_another(rng, changes, shape, dtype):
    arrays = [a.astype(dtype) if i not in (6, 7) else a for i, a in enumerate(draw(rng, *shape))]
    with ran() as log:
        conv_norm_gradient(*arrays, **{**KNOWN, **changes})
    assert log[0] == ("conv_norm_gradient", "reference")
    assert log[1][0] == "normalise_gradient"


def test_how_many_images_go_together():
    shape = module.forward_shape((128, 32, 32, 16), 16, (1, 1), (1, 1))
    images = module._images_together(shape)
    assert images * 32 * 32 * 16 * 4 == module.TOGETHER
    assert module._images_together(shape._replace(p=999, q=999)) == 1
