"""The gradients of a convolution and its BatchNorm in one: as those of the kernels one after
another, however many images go together."""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
import pytest

from minires.kernels import conv_norm as module
from minires.kernels.conv_norm import conv_norm_gradient
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
