"""Winograd convolutions on the GPU, in the emulator: tiles that stick out, chunks, what follows the
sums, and that their transforms are those of the scheme."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from minires.kernels import conv_cuda, launch, norm_cuda, winograd_cuda
from minires.kernels.conv import conv2d, conv2d_input_gradient
from minires.kernels.launch import FOLDER
from minires.kernels.precision import operands
from tests import tolerances
from tests.gpu import emulator
from tests.gpu.emulated import Emulated, sanitizer_reports

__all__: list[str] = []

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not emulator.available(), reason="needs g++"),
]

# images, outputs, padding
SHAPES = [
    ((2, 8, 8, 16), 16, (1, 1)),
    ((3, 7, 9, 5), 33, (1, 1)),
    ((1, 3, 3, 40), 3, (0, 0)),
    ((2, 5, 13, 2), 2, (2, 0)),
    ((1, 1, 1, 1), 1, (1, 2)),
    ((5, 6, 4, 7), 35, (0, 2)),
]


@pytest.fixture(autouse=True)
def platform(monkeypatch: pytest.MonkeyPatch) -> Emulated:
    """Launches go to the emulator."""
    emulated = Emulated(order=4)
    monkeypatch.setattr(launch, "platform", emulated)
    return emulated


def assert_near(y: np.ndarray, exact: np.ndarray) -> None:
    assert y.shape == exact.shape
    assert y.dtype == np.float32
    assert np.linalg.norm(y - exact) <= tolerances.WINOGRAD32 * np.linalg.norm(exact)


@pytest.mark.parametrize("shapes", SHAPES)
@pytest.mark.parametrize("room", [1 << 28, 1 << 14])
def test_outputs_and_input_gradients(shapes: Any, room: int, rng: Any):
    """Against the definition in float64; all images at once, and one or a few at a time."""
    (n, h, w, c), k, padding = shapes
    params: Any = {"stride": (1, 1), "padding": padding, "dilation": (1, 1), "groups": 1}
    draw = lambda *shape: rng.standard_normal(shape).astype(np.float32)  # noqa: E731
    x, windows, b = draw(n, h, w, c), draw(3, 3, c, k), draw(k)
    wide = [a.astype(np.float64) for a in (x, windows, b)]
    size = h + 2 * padding[0] - 2, w + 2 * padding[1] - 2
    residual, g, total = draw(n, *size, k), draw(n, *size, k), draw(n, h, w, c)
    more: Any = {"padding": padding, "size": size, "room": room}
    y = winograd_cuda.correlate(x, windows, None, None, **more, relu=False)
    assert_near(y, conv2d.reference(*wide[:2], **params))
    y = winograd_cuda.correlate(x, windows, b, residual, **more, relu=True)
    assert_near(y, conv2d.reference(*wide, residual.astype(np.float64), **params, relu=True))
    more = {"padding": (2 - padding[0], 2 - padding[1]), "size": (h, w), "room": room}
    dx = winograd_cuda.correlate(g, windows, None, total, **more, relu=False, rotated=True)
    exact = g.astype(np.float64), wide[1], total.astype(np.float64)
    assert_near(dx, conv2d_input_gradient.reference(*exact, size=(h, w), **params))


def test_where_it_pays():
    one, two, three = (1, 1), (2, 2), (3, 3)
    pays = winograd_cuda.pays
    assert pays(128, (7, 7), 512, 512, three, one, one, np.float32)
    assert not pays(1, (7, 7), 512, 512, three, one, one, np.float32)  # the windows outweigh it
    assert not pays(128, (8, 8), 64, 64, three, two, one, np.float32)
    assert not pays(128, (8, 8), 64, 64, three, one, two, np.float32)
    assert not pays(128, (8, 8), 64, 64, one, one, one, np.float32)
    assert not pays(128, (8, 8), 64, 64, three, one, one, np.float64)
    for kind in ("tf32", "bf16", "fp16"):
        with operands(kind):
            assert not pays(128, (8, 8), 64, 64, three, one, one, np.float32)


def test_launches_of_a_layer(rng: Any, platform: Emulated):
    """With both gradients and its BatchNorm, and three more for the products: 12."""
    x, w, gamma = (
        rng.standard_normal(s).astype("f4") for s in ((16, 8, 8, 16), (3, 3, 16, 16), 16)
    )
    params: Any = {"stride": (1, 1), "padding": (1, 1), "dilation": (1, 1), "groups": 1}
    z = conv_cuda.convolve(x, w, **params)
    assert_near(z, conv2d.reference(x.astype(np.float64), w.astype(np.float64), **params))
    y, mean, var = norm_cuda.normalise_batch(z, gamma, gamma, eps=1e-5, relu=True)
    rest: Any = {"relu": True, "from_batch": True}
    dz = norm_cuda.normalise_gradient(y, z, gamma, gamma, mean, var, **rest)[0]
    dx = conv_cuda.convolve_input_gradient(dz, w, x, size=(8, 8), **params)
    exact = [a.astype(np.float64) for a in (dz, w, x)]
    assert_near(dx, conv2d_input_gradient.reference(*exact, size=(8, 8), **params))
    conv_cuda.convolve_weight_gradient(x, dz, window=(3, 3), **params)
    norms = ["find_moments", "normalise", "find_gradients", "normalise_gradient"]
    both = ["winograd_inputs", "winograd_outputs"]
    expected = [*both, *(f"{name}<float>" for name in norms), *both, "im2col<float>"]
    assert platform.launches == expected


def test_the_transforms_are_the_schemes():
    text = (FOLDER / "winograd.cuh").read_text()
    assert text == winograd_cuda.constants()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("flavour", "chosen"),
    [
        ("asan", "outputs_and_input or of_a_layer"),
        ("tsan", "outputs_and_input and shapes4"),  # threads share nothing; each is one of the OS
    ],
    ids=["asan", "tsan"],  # not the words chosen by, or the child would run this test, too
)
def test_sanitizers_find_nothing(flavour: str, chosen: str):
    assert sanitizer_reports(flavour, "tests/gpu/test_winograd.py", "-k", chosen) == []
