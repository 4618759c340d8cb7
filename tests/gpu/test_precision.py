"""Products of 16 bits and in TF32: rounding to the bit, and convolutions of rounded operands."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import minires.functional as F
from minires import nn, optim, precision, random
from minires.backend import resolve_precision
from minires.kernels import bf16, conv_cuda, launch
from minires.kernels.conv import conv2d, conv2d_input_gradient, conv2d_weight_gradient
from minires.kernels.im2col import im2col, launch_im2col
from minires.kernels.precision import NARROW, operand_dtype, operands
from minires.kernels.product import multiply, narrow, widened
from tests import tolerances
from tests.gpu import device, emulator
from tests.gpu.emulated import Emulated, sanitizer_reports

__all__: list[str] = []

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not emulator.available(), reason="needs g++"),
]

both_kinds = pytest.mark.parametrize("kind", ["bf16", "fp16"])


@pytest.fixture
def platform(monkeypatch: pytest.MonkeyPatch) -> Emulated:
    """Launches go to the emulator."""
    emulated = Emulated(order=3)
    monkeypatch.setattr(launch, "platform", emulated)
    return emulated


def rounded(x: np.ndarray, kind: str) -> np.ndarray:
    """The operands as float32, by NumPy."""
    if kind == "bf16":
        return bf16.rounded(x)
    with np.errstate(over="ignore"):
        return x.astype(np.float16).astype(np.float32)


def numbers(rng: np.random.Generator, count: int) -> np.ndarray:
    """Of all sizes: any bits, ties between two numbers of 16 bits, and what is special."""
    bits = rng.integers(0, 2**32, count, np.uint32)
    ties = bits & np.uint32(0xFFFFF000) | np.uint32(0x1000)
    special = np.uint32(
        [0, 1, 0x33000000, 0x33000001, 0x387FFFFF, 0x38800000, 0x477FEFFF, 0x477FF000]
    )
    edge = np.uint32([0x47800000, 0x7F7FFFFF, 0x7F800000, 0x7F800001, 0x7FC00000, 0x38FFE000])
    small = rng.integers(0x32000000, 0x39000000, count, np.uint32)  # where fp16 is denormal
    parts = (
        bits,
        ties,
        bits & np.uint32(0xFFFF8000),
        special,
        edge,
        small,
        small & np.uint32(0xFFFFF000),
    )
    every = np.concatenate(parts)
    return np.concatenate([every, every | np.uint32(1 << 31)]).view(np.float32)


@both_kinds
@pytest.mark.parametrize("more", [0, 1, 3000])
def test_rounding_is_numpys_to_the_bit(kind: str, more: int, rng: Any, platform: Emulated):
    x, x2 = numbers(rng, 3000), numbers(rng, more) if more else None
    y, y2 = narrow(NARROW[kind], x, x2)
    assert platform.launches == ["narrow"]
    np.testing.assert_array_equal(widened(y), rounded(x, kind))
    if x2 is not None:
        np.testing.assert_array_equal(widened(y2), rounded(x2, kind))


@both_kinds
@pytest.mark.parametrize(("c", "groups", "dilation"), [(3, 1, 1), (4, 1, 2), (6, 3, 1), (70, 1, 1)])
def test_columns_are_rounded_with_another_array(kind, c, groups, dilation, rng, platform):
    x, beside = (
        rng.standard_normal((2, 5, 6, c)).astype("f4"),
        rng.standard_normal(5000).astype("f4"),
    )
    params: dict[str, Any] = {"stride": (1, 2), "padding": (2, 1), "dilation": (dilation, dilation)}
    expected = im2col.reference(x, window=(3, 3), **params)
    columns = np.empty((groups, *expected.shape[:-1], c // groups), NARROW[kind])
    narrowed = np.empty(beside.shape, NARROW[kind])
    launch_im2col(x, columns, (beside, narrowed), **params, groups=groups)
    assert platform.launches == ["im2col_narrow"]
    together = np.concatenate(list(widened(columns)), axis=-1)
    np.testing.assert_array_equal(together, rounded(expected, kind))
    np.testing.assert_array_equal(widened(narrowed), rounded(beside, kind))


SHAPES = [
    ((2, 5, 6, 6), (3, 3, 6, 9), 1, 1, 1),
    ((3, 7, 5, 4), (3, 2, 4, 3), 1, 2, 1),
    ((2, 5, 6, 6), (3, 3, 2, 9), 3, 1, 1),
    ((2, 4, 5, 7), (1, 1, 7, 3), 1, 1, 0),
    ((2, 5, 5, 4), (1, 1, 4, 3), 1, 2, 0),
]


def results(xp: Any, x: Any, w: Any, g: Any, total: Any, params: Any) -> list[Any]:
    """The CUDA twins' output and gradients."""
    x, w, g, total = map(xp.asarray, (x, w, g, total))
    size, window = {"size": x.shape[1:3]}, {"window": w.shape[:2]}
    y = conv_cuda.convolve(x, w, relu=True, **params)
    dx = conv_cuda.convolve_input_gradient(g, w, total, **size, **params)
    return [y, dx, conv_cuda.convolve_weight_gradient(x, g, **window, **params)]


def case(rng: Any, shapes: Any) -> Any:
    x_shape, w_shape, groups, stride, padding = shapes
    params = {"stride": (stride,) * 2, "padding": (padding,) * 2, "dilation": (1, 1)}
    params["groups"] = groups
    x, w = (rng.standard_normal(s).astype(np.float32) for s in (x_shape, w_shape))
    g = rng.standard_normal(conv2d.reference(x, w, **params).shape).astype(np.float32)
    return x, w, g, rng.standard_normal(x.shape).astype(np.float32), params


def references(x: Any, w: Any, g: Any, total: Any, params: Any) -> list[Any]:
    """The references' in float64, of what is given."""
    x, w, g, total = (a.astype(np.float64) for a in (x, w, g, total))
    y = conv2d.reference(x, w, relu=True, **params)
    dx = conv2d_input_gradient.reference(g, w, total, size=x.shape[1:3], **params)
    return [y, dx, conv2d_weight_gradient.reference(x, g, window=w.shape[:2], **params)]


def assert_equal_up_to_sums(found: Any, expected: Any) -> None:
    """The operands are what they should be: only sums differ, by float32's roundings."""
    for y, want in zip(found, expected, strict=True):
        y = y.get() if hasattr(y, "get") else y
        assert y.dtype == np.float32
        error = np.linalg.norm(y - want) / np.linalg.norm(want)
        assert error < tolerances.CONV32


@both_kinds
@pytest.mark.parametrize("shapes", SHAPES)
@pytest.mark.parametrize("chunk", [1 << 28, 1500])
def test_convolutions_round_their_operands_only(kind, shapes, chunk, rng, platform, monkeypatch):
    monkeypatch.setattr(conv_cuda, "WORKSPACE", chunk)
    x, w, g, total, params = case(rng, shapes)
    with operands(kind):
        found = results(np, x, w, g, total, params)
    x, w, g = (rounded(a, kind) for a in (x, w, g))
    assert_equal_up_to_sums(found, references(x, w, g, total, params))


@pytest.mark.parametrize("kind", ["float32", "tf32", "bf16", "fp16"])
@pytest.mark.parametrize("shapes", SHAPES)
def test_the_same_on_the_device(kind, shapes, rng, cupy: Any, standin: Any):
    x, w, g, total, params = case(rng, shapes)
    with operands(kind), standin.counted() as n:
        found = results(cupy, x, w, g, total, params)
    assert (n["products"], n["tf32"]) == (3, 3 if kind == "tf32" else 0)
    assert n["half"] == (3 if kind in NARROW else 0)
    assert not n["to_host"] + n["synchronisations"]
    if kind in NARROW:
        x, w, g = (rounded(a, kind) for a in (x, w, g))
    assert_equal_up_to_sums(found, references(x, w, g, total, params))


def test_float64_stays_float64():
    with operands("fp16"):
        assert operand_dtype(np.float64) == np.float64
        assert operand_dtype(np.float32) == np.float16
    assert operand_dtype(np.float32) == np.float32


@pytest.mark.parametrize("dtype", ["float32", "float64", "float16", "uint16"])
@pytest.mark.parametrize("groups", [1, 3])
def test_products_of_views(dtype: str, groups: int, rng: Any, cupy: Any):
    """Lines and columns contiguous, lines apart, one line, one column; added up as well."""
    for m, k, n in ((4, 6, 7), (1, 6, 7), (4, 1, 7), (4, 6, 1), (1, 1, 1)):
        a, b = (rng.integers(-4, 5, s).astype("f4") for s in ((m, groups, k), (k, groups, n)))
        a, b = ((x.view(np.uint32) >> 16 if dtype == "uint16" else x).astype(dtype) for x in (a, b))
        wanted = np.matmul(*(widened(x).transpose(1, 0, 2) for x in (a, b)))
        for turned in (False, True):
            x, y = cupy.asarray(a).transpose(1, 0, 2), cupy.asarray(b).transpose(1, 0, 2)
            if turned:
                x, y = (cupy.asarray(v.get().swapaxes(1, 2).copy()).swapaxes(1, 2) for v in (x, y))
            kind = "float64" if dtype == "float64" else "float32"
            out = cupy.zeros((m, groups, n), kind).transpose(1, 0, 2)
            multiply(x, y, out)
            np.testing.assert_array_equal(out.get(), wanted)
            multiply(x, y, out, add=True)
            np.testing.assert_array_equal(out.get(), 2 * wanted)


def test_an_empty_product(cupy: Any):
    out = cupy.ones((1, 3, 4), np.float32)
    empty = cupy.empty((1, 3, 0), np.float32), cupy.empty((1, 0, 4), np.float32)
    multiply(*empty, out, add=True)
    assert out.get().all()
    multiply(*empty, out)
    assert not out.get().any()


def test_launches_beside_the_products(rng, platform):
    """Of a 3x3 layer with both gradients in 16 bits: one more than in float32."""
    x, w, g, total, params = case(rng, SHAPES[0])
    with operands("fp16"):
        results(np, x, w, g, total, params)
    assert platform.launches == [
        "im2col_narrow",
        "finish<float>",
        "narrow",
        "col2im<float>",
        "im2col_narrow",
    ]


def test_what_a_gpu_lacks(cupy: Any, monkeypatch):
    assert resolve_precision("tf32", "cuda") == "tf32"  # the stand-in counts as 8.0

    class Turing:
        compute_capability = "75"

    monkeypatch.setattr(cupy.cuda, "Device", Turing)
    for name in ("tf32", "bf16"):
        with pytest.raises(RuntimeError, match=f"{name}.* needs .* 8.0, but .* has 7.5: use fp16"):
            resolve_precision(name, "cuda")
    assert resolve_precision("fp16", "cuda") == "fp16"
    monkeypatch.setattr(Turing, "compute_capability", "61")
    with pytest.raises(RuntimeError, match="fp16.* needs .* 7.0, but .* has 6.1: use float32"):
        resolve_precision("fp16", "cuda")


@pytest.mark.parametrize("name", ["tf32", "bf16", "fp16"])
def test_learns_alike_but_not_the_same(name: str, cupy: Any):
    """The losses of ten steps follow float32's."""
    rng = np.random.default_rng(0)
    x, target = rng.standard_normal((16, 16, 16, 3)).astype("f4"), rng.integers(0, 4, 16)
    losses = {}
    for kind in ("float32", name):
        random.manual_seed(0)
        block = nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU()
        net = nn.Sequential(*block, nn.Conv2d(8, 8, 3, 2, padding=1), nn.GlobalAvgPool2d())
        net.append(nn.Linear(8, 4))
        net.to("cuda")
        optimizer = optim.SGD(net.parameters(), 0.1, momentum=0.9)
        losses[kind] = []
        for _ in range(10):
            optimizer.zero_grad()
            with precision(kind, "cuda"):
                loss = F.cross_entropy(net(cupy.asarray(x)), cupy.asarray(target))
                loss.backward()
            optimizer.step()
            losses[kind].append(loss.item())
    if name != "tf32" or not device.installed():  # which the stand-in multiplies in full
        assert losses[name] != losses["float32"]
    np.testing.assert_allclose(losses[name], losses["float32"], rtol=tolerances.BF16_LOSS)
    assert losses[name][-1] < 0.95 * losses[name][0]


@pytest.mark.slow
@pytest.mark.parametrize("flavour", ["asan", "tsan"])
def test_sanitizers_find_nothing(flavour: str):
    chosen = "columns_are_rounded or to_the_bit or operands_only"
    assert sanitizer_reports(flavour, "tests/gpu/test_precision.py", "-k", chosen) == []
