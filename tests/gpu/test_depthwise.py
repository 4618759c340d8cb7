"""Depthwise convolutions on the GPU, in the emulator: any window and size, sums in parts."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from minires.kernels import depthwise_cuda, launch
from minires.kernels.conv import conv2d, conv2d_input_gradient, conv2d_weight_gradient
from minires.kernels.dispatch import Kernel
from minires.kernels.precision import operands
from tests.gpu import emulator
from tests.gpu.emulated import Emulated, sanitizer_reports
from tests.test_ops import assert_close, both_dtypes

__all__: list[str] = []

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not emulator.available(), reason="needs g++"),
]

# images, window, stride, padding, dilation
SHAPES = [
    ((2, 7, 9, 5), (3, 3), (1, 1), (1, 1), (1, 1)),
    ((3, 8, 6, 33), (3, 3), (2, 2), (1, 1), (1, 1)),
    ((1, 9, 7, 70), (5, 2), (1, 3), (0, 2), (2, 1)),
    ((2, 5, 40, 2), (1, 4), (3, 1), (2, 3), (1, 2)),
    ((1, 2, 3, 32), (3, 3), (1, 1), (2, 2), (2, 2)),
    ((2, 4, 4, 3), (1, 1), (1, 1), (0, 0), (1, 1)),
]


@pytest.fixture(autouse=True)
def platform(monkeypatch: pytest.MonkeyPatch) -> Emulated:
    """Launches go to the emulator."""
    emulated = Emulated(order=5)
    monkeypatch.setattr(launch, "platform", emulated)
    return emulated


def compare(kernel: Kernel, *args: Any, **params: Any) -> None:
    function, serves = kernel.twins["cuda"]
    assert serves(*args, **params)
    assert_close(function(*args, **params), kernel.reference(*args, **params), args[0].dtype.type)


def three(rng: np.random.Generator, shapes: Any, dtype: Any) -> None:
    """Output and both gradients, with everything that may follow them."""
    size, window, stride, padding, dilation = shapes
    params = {"stride": stride, "padding": padding, "dilation": dilation, "groups": size[3]}
    x = rng.standard_normal(size).astype(dtype)
    w, b = (rng.standard_normal(s).astype(dtype) for s in ((*window, 1, size[3]), size[3]))
    y = conv2d.reference(x, w, **params)
    g, residual = (rng.standard_normal(y.shape).astype(dtype) for _ in range(2))
    compare(conv2d, x, w, **params)
    compare(conv2d, x, w, b, residual, **params, relu=True)
    compare(conv2d_input_gradient, g, w, size=size[1:3], **params)
    compare(conv2d_input_gradient, g, w, x, size=size[1:3], **params)
    compare(conv2d_weight_gradient, x, g, window=window, **params)


@both_dtypes
@pytest.mark.parametrize("shapes", SHAPES)
def test_any_window(shapes: Any, dtype: Any, rng: Any, platform: Emulated):
    three(rng, shapes, dtype)
    name = "float" if dtype == np.float32 else "double"
    kinds = ["depthwise"] * 2 + ["depthwise_input"] * 2 + ["depthwise_weight", "depthwise_sum"]
    assert platform.launches == [f"{kind}<{name}>" for kind in kinds]


@pytest.mark.parametrize("blocks", [1, 60])
def test_sums_in_parts(blocks: int, rng: Any, monkeypatch):
    """One part, and several of which the last is shorter."""
    monkeypatch.setattr(depthwise_cuda, "BLOCKS", blocks)
    monkeypatch.setattr(depthwise_cuda, "LEAST", 1)
    three(rng, SHAPES[0], np.float32)


def test_they_are_float32_in_every_precision(rng: Any):
    with operands("fp16"):
        three(rng, SHAPES[0], np.float32)


@pytest.mark.parametrize("order", [1, 2])
def test_results_do_not_depend_on_the_order(order: int, rng: Any, platform: Emulated):
    x, g = (rng.standard_normal((3, 9, 8, 37)).astype(np.float32) for _ in range(2))
    params: Any = {"stride": (1, 1), "padding": (1, 1), "dilation": (1, 1), "window": (3, 3)}
    found = []
    for platform.order in (0, order):
        found.append(depthwise_cuda.convolve_weight_gradient(x, g, **params))
    np.testing.assert_array_equal(*found)


@pytest.mark.slow
@pytest.mark.parametrize("flavour", ["asan", "tsan"])
def test_sanitizers_find_nothing(flavour: str):
    chosen = "any_window or in_parts"
    assert sanitizer_reports(flavour, "tests/gpu/test_depthwise.py", "-k", chosen) == []
