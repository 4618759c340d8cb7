"""The choice of a convolution's algorithm, and that the kernels follow it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from minires.kernels import amx, conv, direct, winograd
from minires.kernels.bf16 import AVAILABLE
from minires.kernels.dispatch import ran
from minires.kernels.isa import ISA
from minires.kernels.plan import choose_convolution
from minires.kernels.precision import operands

__all__: list[str] = []

ONE, TWO = (1, 1), (2, 2)
vectors = pytest.mark.skipif(not ISA.width, reason="plain code has no Winograd kernels")


def choose(x, w, stride=ONE, padding=ONE, dilation=ONE, groups=1, dtype="float32"):
    return choose_convolution(x, w, stride, padding, dilation, groups, dtype)


@vectors
@pytest.mark.parametrize(
    ("channels", "size"), [(64, 32), (128, 16), (256, 8), (512, 4), (16, 32), (32, 16), (64, 8)]
)
def test_resnets_use_winograd(channels, size):
    x, w = (128, size, size, channels), (3, 3, channels, channels)
    assert choose(x, w) == "winograd"
    assert choose(x, w, dtype="float64") == "im2col"
    assert choose(x, w, dilation=TWO) == "direct"
    assert choose(x, w, padding=(3, 1)) == "direct"


@vectors
def test_few_or_empty_tiles_do_not():
    assert choose((512, 1, 1, 64), (3, 3, 64, 64)) == "direct"
    assert choose((1, 4, 4, 512), (3, 3, 512, 512)) == "im2col"
    assert choose((64, 7, 7, 512), (3, 3, 512, 512)) == "winograd"
    assert choose((64, 32, 32, 2), (3, 3, 2, 16)) == "direct"
    assert choose((64, 32, 32, 3), (3, 3, 3, 64)) == "direct"  # ResNet-18's stem
    assert choose((64, 32, 32, 3), (3, 3, 3, 16)) == "winograd"  # ResNet-20's


@vectors
@pytest.mark.parametrize(
    ("n", "size", "c", "k"),
    [(128, 32, 64, 128), (128, 16, 128, 256), (128, 8, 256, 512), (128, 32, 16, 32)]
    + [(128, 16, 32, 64), (16, 56, 128, 128), (16, 28, 256, 256), (3, 33, 16, 16)],
)
def test_strides_of_two_use_the_polyphase_form(n, size, c, k):
    x, w = (n, size, size, c), (3, 3, c, k)
    assert choose(x, w, stride=TWO) == "polyphase"
    assert choose(x, w, stride=TWO, dtype="float64") == "im2col"
    for other in ({"padding": (0, 0)}, {"padding": (1, 2)}, {"dilation": TWO}):
        assert choose(x, w, stride=TWO, **other) == "direct"
    assert choose(x, w, stride=(2, 1)) == "direct"
    if AVAILABLE:
        with operands("bf16"):
            assert choose(x, w, stride=TWO) == ("tiled" if amx.available() else "direct")


@pytest.mark.skipif(not AVAILABLE, reason="this CPU has no AVX512_BF16")
@pytest.mark.parametrize("has_tiles", [False, True])
def test_tiles_take_what_fills_them(monkeypatch, has_tiles):
    monkeypatch.setattr(amx, "available", lambda: has_tiles)
    tiled = "tiled" if has_tiles else "direct"
    wide, narrow = ((128, 8, 8, c) for c in (128, 64))
    assert choose(wide, (3, 3, 128, 128)) == "winograd"
    with operands("bf16"):
        assert choose(wide, (3, 3, 128, 128)) == ("tiled" if has_tiles else "winograd")
        assert choose(narrow, (3, 3, 64, 64)) == "winograd"
        assert choose(narrow, (1, 1, 64, 16), padding=(0, 0)) == tiled
        assert choose(narrow, (1, 1, 64, 15), padding=(0, 0)) == "direct"
        assert choose((128, 8, 8, 3), (5, 5, 3, 64)) == "direct"
        assert choose(wide, (5, 5, 64, 128), groups=2) == "direct"
        assert choose((3, 8, 8, 64), (1, 1, 64, 64), padding=(0, 0)) == "im2col"
        assert choose(wide, (3, 3, 128, 128), dtype="float64") == "im2col"


@vectors
def test_narrow_or_few_strided_images_do_not():
    assert choose((128, 32, 32, 15), (3, 3, 15, 64), stride=TWO) == "direct"
    assert choose((128, 32, 32, 64), (3, 3, 64, 15), stride=TWO) == "direct"
    assert choose((16, 14, 14, 512), (3, 3, 512, 512), stride=TWO) == "direct"
    assert choose((1, 16, 16, 64), (3, 3, 64, 64), stride=TWO) == "im2col"


def test_other_windows_and_groups():
    ours = "direct" if ISA.width else "im2col"
    assert choose((128, 8, 8, 64), (1, 1, 64, 128), padding=(0, 0)) == ours
    assert choose((128, 8, 8, 64), (5, 5, 64, 64)) == ours
    assert choose((2, 8, 8, 64), (5, 5, 64, 64)) == "im2col"
    assert choose((128, 8, 8, 64), (5, 5, 64, 64), dtype="float64") == "im2col"
    assert choose((128, 8, 8, 64), (3, 3, 32, 64), groups=2) == ours
    assert choose((128, 8, 8, 64), (3, 3, 32, 64), groups=2, dtype="float64") == "im2col"
    assert choose((2, 8, 8, 64), (3, 3, 32, 64), groups=2) == "im2col"
    for dtype in ("float32", "float64"):
        assert choose((2, 8, 8, 64), (3, 3, 1, 64), groups=64, dtype=dtype) == "depthwise"
    assert choose((128, 8, 8, 32), (3, 3, 1, 64), groups=32) == ours
    assert choose((128, 8, 8, 64), (3, 3, 64, 64), dtype="int64") == "reference"


@vectors
@pytest.mark.parametrize(
    ("window", "stride", "module"), [(3, ONE, winograd), (3, TWO, winograd), (5, ONE, direct)]
)
@pytest.mark.parametrize("images", [1, 32])
def test_the_kernels_follow_the_plan(rng, monkeypatch, window, stride, module, images):
    calls: list[str] = []

    def spy(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def called(*arguments: Any, **params: Any) -> Any:
            calls.append(name)
            return function(*arguments, **params)

        return called

    watched = ["convolve", "convolve_input_gradient", "convolve_weight_gradient"]
    for name in watched:
        monkeypatch.setattr(module, name, spy(name, getattr(module, name)))
    params = {"stride": stride, "padding": ONE, "dilation": ONE, "groups": 1}
    w = rng.standard_normal((window, window, 16, 16)).astype(np.float32)
    x = rng.standard_normal((images, 12, 12, 16)).astype(np.float32)
    with ran() as log:
        y = conv.conv2d(x, w, **params)
        conv.conv2d_input_gradient(y, w, size=(12, 12), **params)
        conv.conv2d_weight_gradient(x, y, window=w.shape[:2], **params)
    assert [which for _, which in log] == ["cpu"] * 3
    assert calls == (watched if images > 1 else [])
