"""What the sample calls do not reach, in the emulator: several chunks and parts, odd widths, empty
batches, NaN, bad labels and indices, numbers that the kernels read from the GPU's memory."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from minires.kernels import conv_cuda, launch, norm_cuda
from minires.kernels.augment import augment_batch, gather_batch, pixel_table
from minires.kernels.conv import conv2d, conv2d_input_gradient, conv2d_weight_gradient
from minires.kernels.dispatch import Kernel
from minires.kernels.dropout import drop
from minires.kernels.im2col import col2im, im2col
from minires.kernels.loss import softmax_loss, softmax_loss_gradient
from minires.kernels.norm import normalise, normalise_batch, normalise_gradient
from minires.kernels.optim import adam_step, sgd_step
from minires.kernels.pool import average_pool2d, max_pool2d, max_pool2d_gradient
from minires.kernels.random import Key, random_bits
from tests.gpu import emulator
from tests.gpu.emulated import Emulated, sanitizer_reports
from tests.test_ops import assert_close

__all__: list[str] = []

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not emulator.available(), reason="needs g++"),
]

WINDOW = {"window": (3, 3), "stride": (2, 2), "padding": (1, 1)}
CONV = {"stride": (1, 1), "padding": (1, 1), "dilation": (1, 1)}
SGD = {"momentum": 0.9, "dampening": 0.0, "nesterov": True, "weight_decay": 1e-2, "first": False}
ADAM = {"beta1": 0.9, "beta2": 0.999, "eps": 1e-8, "weight_decay": 1e-2, "decoupled": True}


@pytest.fixture(autouse=True)
def platform(monkeypatch: pytest.MonkeyPatch) -> Emulated:
    """Launches go to the emulator."""
    emulated = Emulated()
    monkeypatch.setattr(launch, "platform", emulated)
    return emulated


def twin(kernel: Kernel, *args: Any, **params: Any) -> Any:
    """What the CUDA twin returns; it must serve the call."""
    function, serves = kernel.twins["cuda"]
    assert serves(*args, **params)
    return function(*args, **params)


def compare(kernel: Kernel, *args: Any, **params: Any) -> None:
    assert_close(twin(kernel, *args, **params), kernel.reference(*args, **params), np.float32)


def normal(rng: np.random.Generator, *shape: int) -> np.ndarray:
    return rng.standard_normal(shape).astype(np.float32)


@pytest.mark.parametrize("groups", [1, 3])
def test_convolutions_in_several_chunks(groups, rng, monkeypatch, platform):
    """Three images a chunk, one left over."""
    x, w = normal(rng, 7, 5, 6, 6), normal(rng, 3, 3, 6 // groups, 9)
    g, b, residual = normal(rng, 7, 5, 6, 9), normal(rng, 9), normal(rng, 7, 5, 6, 9)
    monkeypatch.setattr(conv_cuda, "WORKSPACE", 3 * 5 * 6 * 54 * 4)
    params = {**CONV, "groups": groups}
    compare(conv2d, x, w, b, residual, **params, relu=True)
    compare(conv2d_input_gradient, g, w, size=(5, 6), **params)
    compare(conv2d_weight_gradient, x, g, window=(3, 3), **params)
    assert platform.launches.count("im2col<float>") == 6
    assert platform.launches.count("col2im<float>") == 3


def test_an_image_larger_than_the_workspace(rng, monkeypatch):
    monkeypatch.setattr(conv_cuda, "WORKSPACE", 1)
    compare(conv2d, normal(rng, 2, 4, 4, 3), normal(rng, 3, 3, 3, 2), **CONV, groups=1)


def test_launches_of_a_convolution_with_its_norm(rng, platform):
    """Beside the products: im2col twice, col2im, and two launches each way for the BatchNorm."""
    x, w, g = normal(rng, 2, 4, 4, 3), normal(rng, 3, 3, 3, 5), normal(rng, 2, 4, 4, 5)
    gamma, beta = normal(rng, 5), normal(rng, 5)
    z = twin(conv2d, x, w, **CONV, groups=1)
    _, mean, var = twin(normalise_batch, z, gamma, beta, eps=1e-5, relu=True)
    dz, *_ = twin(normalise_gradient, g, z, gamma, beta, mean, var, relu=True, from_batch=True)
    twin(conv2d_input_gradient, dz, w, size=(4, 4), **CONV, groups=1)
    twin(conv2d_weight_gradient, x, dz, window=(3, 3), **CONV, groups=1)
    assert len(platform.launches) == 7


@pytest.mark.parametrize("c", [1, 3, 31, 33, 70])
@pytest.mark.parametrize("rows", [2, 129, 1000])
def test_norms_of_odd_sizes(rows, c, rng, monkeypatch):
    """Several parts of the rows, remainders in both directions; far from 0 as well."""
    monkeypatch.setattr(norm_cuda, "LEAST", 48)
    x, g = normal(rng, rows, c) + 100, normal(rng, rows, c)
    gamma, beta, residual = normal(rng, c), normal(rng, c), normal(rng, rows, c)
    compare(normalise, x, gamma, beta, residual, relu=True)
    found = twin(normalise_batch, x, gamma, beta, residual, eps=1e-5, relu=False)
    wide = [v.astype(np.float64) for v in (x, gamma, beta, residual)]
    y, mean, var = normalise_batch.reference(*wide, eps=1e-5, relu=False)
    assert_close(found[1:], (mean, var), np.float32)
    # x is 100 with steps of 1e-5 there, and the output has to be as good as that allows
    np.testing.assert_allclose(found[0], y, rtol=0, atol=2e-3 if rows == 2 else 2e-4)
    x -= 100
    compare(normalise_batch, x, gamma, beta, residual, eps=1e-5, relu=True)
    mean, var = x.mean(0, dtype=np.float64), x.var(0, dtype=np.float64)
    for y in (None, normal(rng, rows, c)):
        params = {"relu": True, "from_batch": rows > 2}
        compare(normalise_gradient, g, x, gamma, beta, mean, var, y, **params)


def test_the_number_of_parts_depends_on_the_shape_alone():
    assert norm_cuda._parts(802816, 64) == (512, 1568)
    assert norm_cuda._parts(12544, 512) == (64, 196)
    assert norm_cuda._parts(5, 3) == (1, 128)


@pytest.mark.parametrize("order", [1, 2, 3])
def test_results_do_not_depend_on_the_order(order, rng, platform):
    """Of blocks and threads: the same bits."""
    x, gamma, beta = normal(rng, 700, 37), normal(rng, 37), normal(rng, 37)
    logits, labels = normal(rng, 21, 50), rng.integers(0, 50, 21)

    def results() -> list[np.ndarray]:
        y, mean, var = twin(normalise_batch, x, gamma, beta, eps=1e-5, relu=True)
        statistics = mean, var
        grads = twin(normalise_gradient, y, x, gamma, beta, *statistics, relu=True, from_batch=True)
        return [y, mean, var, *grads[:3], *twin(softmax_loss, logits, labels, smoothing=0.1)]

    expected = results()
    platform.order = order
    for found, e in zip(results(), expected, strict=True):
        np.testing.assert_array_equal(found, e)


def test_norms_pass_nan_on(rng):
    x = normal(rng, 6, 3)
    x[2, 1] = np.nan
    y, mean, var = twin(normalise_batch, x, normal(rng, 3), normal(rng, 3), eps=1e-5, relu=True)
    assert np.isnan(y).any(axis=0).tolist() == [False, True, False]
    assert np.isnan([mean, var]).any(axis=0).tolist() == [False, True, False]


def test_empty_batches_launch_nothing(rng, platform):
    none = np.empty((0, 4, 4, 3), np.float32)
    assert twin(im2col, none, **WINDOW, dilation=(1, 1)).shape == (0, 2, 2, 3, 3, 3)
    columns = np.empty((0, 2, 2, 3, 3, 3), np.float32)
    params = {"size": (4, 4), "stride": (2, 2), "padding": (1, 1), "dilation": (1, 1)}
    assert twin(col2im, columns, **params).shape == none.shape
    w, g = normal(rng, 3, 3, 3, 5), np.empty((0, 4, 4, 5), np.float32)
    assert twin(conv2d, none, w, **CONV, groups=1).shape == g.shape
    assert twin(conv2d_input_gradient, g, w, size=(4, 4), **CONV, groups=1).shape == none.shape
    dw = twin(conv2d_weight_gradient, none, g, window=(3, 3), **CONV, groups=1)
    np.testing.assert_array_equal(dw, np.zeros_like(w))
    assert [a.shape for a in twin(max_pool2d, none, **WINDOW)] == [(0, 2, 2, 3)] * 2
    assert twin(average_pool2d, none, **WINDOW, only_inside=True).shape == (0, 2, 2, 3)
    labels = np.empty(0, np.int64)
    assert twin(softmax_loss, np.empty((0, 3), np.float32), labels, smoothing=0.0)[0].size == 0
    assert twin(drop, none, p=0.5, key=Key(1)).shape == none.shape
    assert (
        twin(
            gather_batch, np.empty((2, 4, 4, 3), np.uint8), labels, pixel_table([0] * 3, [1] * 3)
        ).shape
        == none.shape
    )
    assert twin(random_bits, np.empty(0, np.uint32), seed=1, stream=0, step=0).size == 0
    assert not platform.launches


def test_a_norm_of_nothing_is_left_to_the_reference():
    none, c = np.empty((0, 3), np.float32), np.ones(3, np.float32)
    assert not normalise.twins["cuda"][1](none, c, c, None, relu=True)


def test_pools_of_equals_nan_and_padding(rng):
    x = rng.integers(0, 3, (2, 7, 6, 5)).astype(np.float32)
    x[1, 2:4] = np.nan
    y, index = twin(max_pool2d, x, **WINDOW)
    expected, places = max_pool2d.reference(x, **WINDOW)
    np.testing.assert_array_equal(y, expected)
    np.testing.assert_array_equal(index, places)
    g = normal(rng, *y.shape)
    compare(max_pool2d_gradient, g, index, **WINDOW, size=(7, 6))
    only_padding = {"window": (1, 1), "stride": (1, 1), "padding": (1, 1)}
    y, index = twin(max_pool2d, x[:, :2, :2], **only_padding)
    assert np.isneginf(y[:, 0]).all()
    assert not index.any()


def test_windows_that_do_not_touch_all_pixels(rng):
    """A stride larger than the window: pixels between get 0."""
    params = {"window": (2, 1), "stride": (3, 4), "padding": (0, 0)}
    y, index = twin(max_pool2d, normal(rng, 2, 8, 9, 3), **params)
    compare(max_pool2d_gradient, normal(rng, *y.shape), index, **params, size=(8, 9))


@pytest.mark.parametrize("k", [1, 2, 31, 32, 33, 300])
def test_losses_of_any_number_of_classes(k, rng):
    logits, labels = 20 * normal(rng, 9, k), rng.integers(0, k, 9)
    compare(softmax_loss, logits, labels.astype(np.int32), smoothing=0.1)
    log_p = softmax_loss.reference(logits, labels, smoothing=0.1)[1]
    compare(softmax_loss_gradient, log_p, np.array(2, np.float32), labels, smoothing=0.1)


def test_wrong_labels_and_indices_are_nan(rng):
    labels = np.array([0, 3, -1, 2])
    losses, log_p = twin(softmax_loss, normal(rng, 4, 3), labels, smoothing=0.0)
    assert np.isnan(losses).tolist() == [False, True, True, False]
    g = twin(softmax_loss_gradient, log_p, np.float32([1] * 4), labels, smoothing=0.0)
    assert np.isnan(g).all(axis=1).tolist() == [False, True, True, False]
    images, table = rng.integers(0, 256, (2, 3, 3, 1), np.uint8), pixel_table([0.5], [0.2])
    for indices in (np.array([0, 2, 1]), np.array([1, -1, 0])):
        for kernel, more in ((gather_batch, {}), (augment_batch, {"pad": 2, "seed": 4})):
            wrong = np.isnan(twin(kernel, images, indices, table, **more)).all(axis=(1, 2, 3))
            assert wrong.tolist() == [False, True, False]


def test_augmentation_of_large_images_is_the_same_to_the_bit(rng):
    """Several blocks an image."""
    images, table = (
        rng.integers(0, 256, (4, 45, 47, 3), np.uint8),
        pixel_table([0.5] * 3, [0.2] * 3),
    )
    params = {"pad": 9, "flip": True, "cutout": 17, "seed": 2**63 + 5, "stream": 4, "step": 2**40}
    args = images, np.array([3, 0, 1, 3, 2]), table
    expected = augment_batch.reference(*args, **params)
    np.testing.assert_array_equal(twin(augment_batch, *args, **params), expected)
    params["step"] = np.array(params["step"], np.uint64)
    np.testing.assert_array_equal(twin(augment_batch, *args, **params), expected)


@pytest.mark.parametrize("size", [1, 2, 3, 4, 5, 1023, 1027])
def test_draws_are_the_same_to_the_bit(size, rng):
    key = {"seed": 2**64 - 1, "stream": 2**32 - 1, "step": 2**64 - 2}
    empty = np.empty(size, np.uint32)
    expected = random_bits.reference(empty.copy(), **key)
    np.testing.assert_array_equal(twin(random_bits, empty.copy(), **key), expected)
    key["step"] = np.array(key["step"], np.uint64)
    np.testing.assert_array_equal(twin(random_bits, empty.copy(), **key), expected)
    x = normal(rng, size)
    expected = drop.reference(x, p=0.3, key=Key(7, 8, 9))
    for step in (9, np.array(9, np.uint64)):
        np.testing.assert_array_equal(twin(drop, x, p=0.3, key=Key(7, 8, step)), expected)


def test_steps_read_what_changes_from_memory(rng):
    """The same bits as with the numbers as arguments, and close to the reference."""
    n = 4096 + 17
    w, g, m, v = (normal(rng, n) for _ in range(4))
    v = abs(v)
    outcomes = []
    for lr, step in ((0.1, 7), (np.array(0.1), np.array([7]))):
        outcomes.append(twin(sgd_step, w.copy(), g, m.copy(), lr=lr, **SGD))
        state = w.copy(), g, m.copy(), v.copy()
        outcomes[-1] += twin(adam_step, *state, lr=lr, step=step, **ADAM)
    for found, expected in zip(*outcomes, strict=True):
        np.testing.assert_array_equal(found, expected)
    expected = sgd_step.reference(w.copy(), g, m.copy(), lr=0.1, **SGD)
    expected += adam_step.reference(w.copy(), g, m.copy(), v.copy(), lr=0.1, step=7, **ADAM)
    assert_close(outcomes[0], expected, np.float32)


@pytest.mark.slow
@pytest.mark.parametrize("flavour", ["asan", "tsan"])
def test_sanitizers_find_nothing(flavour: str):
    chosen = "several_chunks or 129-33 or number_of_classes or memory or large_images or equals"
    assert sanitizer_reports(flavour, "tests/gpu/test_edges.py", "-k", chosen) == []
