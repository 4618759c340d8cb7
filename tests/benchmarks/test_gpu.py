"""The model on paper: the launches that the CUDA twins make, and numbers worked out by hand."""

from __future__ import annotations

import json
from collections import Counter

import numpy as np
import pytest

from benchmarks import gpu
from minires.kernels import conv_cuda, launch, norm_cuda
from tests.kernels.test_launch import Recorder

__all__: list[str] = []

Shape = tuple[int, ...]
Call = tuple[str, tuple[Shape | None, ...]]


def convolved(x: Shape, w: Shape, z: Shape, residual: Shape | None = None) -> list[Call]:
    """The calls of a convolution and its BatchNorm in training, as `gpu.trace` finds them."""
    line = z[-1:]
    return [("conv2d", (x, w)), ("normalise_batch", (z, line, line, residual, line, line, ()))]


FIRST = convolved((1, 6, 6, 2), (1, 1, 2, 3), (1, 6, 6, 3))
CALLS = [*FIRST, *convolved((1, 6, 6, 3), (3, 3, 3, 5), (1, 6, 6, 5), residual=(1, 6, 6, 5))]


def test_launches_are_those_of_the_twins(monkeypatch: pytest.MonkeyPatch, rng):
    """A convolution, its BatchNorm with a residual, and both gradients: 10 with the products."""
    recorder = Recorder()
    monkeypatch.setattr(launch, "platform", recorder)
    shapes = (2, 6, 6, 3), (3, 3, 3, 5), (2, 6, 6, 5), (5,)
    x, w, g, gamma = (rng.standard_normal(s).astype(np.float32) for s in shapes)
    params = {"stride": (1, 1), "padding": (1, 1), "dilation": (1, 1), "groups": 1}
    z = conv_cuda.convolve(x, w, **params)
    y, mean, var = norm_cuda.normalise_batch(z, gamma, gamma, g, eps=1e-5, relu=True)
    statistics = mean, var, y
    norm_cuda.normalise_gradient(g, z, gamma, gamma, *statistics, relu=True, from_batch=True)
    conv_cuda.convolve_input_gradient(g, w, size=(6, 6), **params)
    conv_cuda.convolve_weight_gradient(x, g, window=(3, 3), **params)
    made = Counter(name.partition("<")[0] for name, *_ in recorder.calls)
    on_paper = [*gpu.step_launches(CALLS, 2)][len([*gpu.step_launches(FIRST, 2)]) :]
    assert Counter(u.kernel for u in on_paper) == made + Counter(product=3)
    assert len(on_paper) == 10


def test_numbers_by_hand():
    launches = {u.kernel: u for u in gpu.step_launches(CALLS, 4)}
    images, columns, outputs, weights = 4 * 36 * 3, 4 * 36 * 27, 4 * 36 * 5, 27 * 5
    assert launches["im2col"].numbers == images + columns
    product = launches["product"]
    assert product.numbers == columns + weights + outputs
    assert product.operations == 2 * outputs * 27
    assert launches["find_gradients"].numbers == 4 * outputs
    device = gpu.Device(bandwidth=1e3, float32=1.0, tf32=1e9)
    assert gpu.floor(product, device, tf32=False) == product.operations
    assert gpu.floor(product, device, tf32=True) == 4 * product.numbers / 1e3
    without = 4 * (images + weights + outputs) / 1e3
    assert gpu.floor(product, device, tf32=True, ideal=True) == without
    assert gpu.floor(launches["im2col"], device, tf32=True, ideal=True) == 0


def test_winograd_by_hand():
    """16 tiles of 8x8 images: by float32 units, but not by TF32 units."""
    x, w = (1, 8, 8, 16), (3, 3, 16, 16)
    calls = [*FIRST, *convolved(x, w, x)]
    launches = [u for u in gpu.step_launches(calls, 4) if "winograd" in u.kernel]
    assert [u.kernel for u in launches] == ["winograd_inputs", "winograd_outputs"] * 2
    image, tiles, windows = 4 * 64 * 16, 36 * 16 * 16, 36 * 16 * 16
    assert launches[0].numbers == image + 9 * 256 + tiles + windows
    assert launches[1].numbers == tiles + image
    assert not any("winograd" in u.kernel for u in gpu.step_launches(calls, 4, tf32=True))


def test_a_traced_network_adds_a_residual_after_each_block():
    """BatchNorm's gradients read two arrays more where a residual was added: 9 of 19 times."""
    launches = [*gpu.step_launches(gpu.trace("resnet20"), 1)]
    sizes = [u.numbers for u in launches if u.kernel == "find_moments"]
    read = [u.numbers for u in launches if u.kernel == "find_gradients"]
    assert Counter(r // s for r, s in zip(read, sizes, strict=True)) == {2: 10, 4: 9}


def test_the_command(capsys: pytest.CaptureFixture[str]):
    assert gpu.main(["--model", "resnet20", "--paper", "--batch", "8", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    rows = {row["kernel"]: row for row in found["kernels"]}
    assert rows["product"]["launches"] == 3 * 19 - 1  # the images need no gradient
    for step in found["steps"].values():
        assert all(0 < i <= f for i, f in zip(step["ideal_ms"], step["floor_ms"], strict=True))
    assert gpu.main(["--model", "resnet20", "--paper"]) == 0
    assert "H100" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        gpu.main(["--paper", "--batch", "0"])
