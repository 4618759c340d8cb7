"""The choice of a convolution's algorithm, and that the kernels follow it."""

from __future__ import annotations

import numpy as np
import pytest

from minires.kernels import conv, winograd
from minires.kernels.dispatch import ran
from minires.kernels.isa import ISA
from minires.kernels.plan import choose_convolution

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
    assert choose(x, w, stride=TWO) == "im2col"
    assert choose(x, w, dilation=TWO) == "im2col"
    assert choose(x, w, padding=(3, 1)) == "im2col"


@vectors
def test_few_or_empty_tiles_do_not():
    assert choose((128, 1, 1, 64), (3, 3, 64, 64)) == "im2col"
    assert choose((1, 4, 4, 512), (3, 3, 512, 512)) == "im2col"
    assert choose((64, 7, 7, 512), (3, 3, 512, 512)) == "winograd"
    assert choose((64, 32, 32, 2), (3, 3, 2, 16)) == "im2col"


def test_other_windows_and_groups():
    assert choose((128, 8, 8, 64), (1, 1, 64, 128), padding=(0, 0)) == "im2col"
    assert choose((128, 8, 8, 64), (5, 5, 64, 64)) == "im2col"
    assert choose((128, 8, 8, 64), (3, 3, 32, 64), groups=2) == "reference"
    assert choose((128, 8, 8, 64), (3, 3, 64, 64), dtype="int64") == "reference"


@vectors
def test_the_kernels_follow_the_plan(rng, monkeypatch):
    calls = []
    for name in winograd.__all__:
        function = getattr(winograd, name)
        spy = lambda *a, f=function, name=name, **k: (calls.append(name), f(*a, **k))[1]  # noqa: E731
        monkeypatch.setattr(winograd, name, spy)
    params = {"stride": ONE, "padding": ONE, "dilation": ONE, "groups": 1}
    w = rng.standard_normal((3, 3, 16, 16)).astype(np.float32)
    for images, expected in ((8, winograd.__all__), (1, [])):
        calls.clear()
        x = rng.standard_normal((images, 12, 12, 16)).astype(np.float32)
        with ran() as log:
            y = conv.conv2d(x, w, **params)
            conv.conv2d_input_gradient(y, w, size=(12, 12), **params)
            conv.conv2d_weight_gradient(x, y, window=(3, 3), **params)
        assert [which for _, which in log] == ["cpu"] * 3
        assert calls == expected
