"""Winograd convolutions: the algorithm, its instructions, and the kernels at every size."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import numba
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from llvmlite import ir

from minires.kernels import conv, winograd
from minires.kernels import winograd_schemes as schemes
from minires.kernels import winograd_transforms as transforms
from minires.kernels.dispatch import reference
from minires.kernels.im2col import output_size
from minires.kernels.isa import ISA
from minires.kernels.memory import set_threads
from minires.kernels.simd import vector_function
from tests import tolerances
from tests.tolerances import relative_rms

__all__: list[str] = []

vectors = pytest.mark.skipif(not ISA.width, reason="plain code has no Winograd kernels")
compiled = pytest.mark.skipif(
    numba.config.DISABLE_JIT,  # type: ignore[attr-defined]
    reason="vector functions need the compiler",
)
Two = tuple[int, int]
strides = pytest.mark.parametrize("stride", [(1, 1), (2, 2)])


@pytest.fixture(params=["tiles", "channels"])
def order(request, monkeypatch):
    """What a thread takes: some tiles through all channels, or some channels of all tiles."""
    monkeypatch.setattr(winograd, "DEEP", 0 if request.param == "channels" else 1 << 60)
    monkeypatch.setattr(winograd, "FEW", 1 << 60)
    return request.param


def exactly(x: Any, w: Any, g: Any, stride: Two, padding: Two) -> tuple[np.ndarray, ...]:
    """y, dx, dw by the definition in float64."""
    x, w, g = (a.astype(np.float64) for a in (x, w, g))
    params: Any = {"stride": stride, "padding": padding, "dilation": (1, 1), "groups": 1}
    with reference():
        return (
            conv.conv2d(x, w, **params),
            conv.conv2d_input_gradient(g, w, size=x.shape[1:3], **params),
            conv.conv2d_weight_gradient(x, g, window=(3, 3), **params),
        )


def by_winograd(x: Any, w: Any, g: Any, stride: Two, padding: Two) -> tuple[np.ndarray, ...]:
    """y, dx, dw by the kernels."""
    params: Any = {"stride": stride, "padding": padding}
    return (
        winograd.convolve(x, w, **params),
        winograd.convolve_input_gradient(g, w, size=x.shape[1:3], **params),
        winograd.convolve_weight_gradient(x, g, **params),
    )


def draw(
    rng: Any, n: int, h: int, w: int, c: int, k: int, stride: Two = (1, 1), padding: Two = (1, 1)
) -> Any:
    """Random x, w, g, each in a buffer whose other numbers are NaN."""
    p, q = (output_size(size, 3, stride[i], padding[i], 1) for i, size in enumerate((h, w)))
    arrays = []
    for shape in ((n, h, w, c), (3, 3, c, k), (n, p, q, k)):
        buffer = np.full(np.prod(shape) + 128, np.nan, np.float32)
        arrays.append(buffer[64:-64].reshape(shape))
        arrays[-1][...] = rng.standard_normal(shape)
    return arrays


def check(arrays: Any, stride: Two = (1, 1), padding: Two = (1, 1)) -> None:
    limits = tolerances.WINOGRAD32, tolerances.WINOGRAD32, tolerances.WINOGRAD_WEIGHTS32
    names = "y", "dx", "dw"
    for name, got, exact, limit in zip(
        names, by_winograd(*arrays, stride, padding), exactly(*arrays, stride, padding), limits
    ):
        assert relative_rms(got, exact) < limit, (
            f"{name} of {[a.shape for a in arrays]}, {stride, padding}"
        )
        assert got.dtype == np.float32


# -- the algorithm


def test_matrices_make_a_correlation(rng):
    for scheme in schemes.SCHEMES:
        d, g = rng.standard_normal(scheme.image), rng.standard_normal(3)
        y = scheme.a_t @ ((scheme.g @ g) * (scheme.b_t @ d))
        if scheme is schemes.SPREAD:
            d = np.stack([np.zeros(len(d)), d], axis=1).reshape(-1)  # zeros between
        expected = np.correlate(d, g)[:: 2 if scheme is schemes.STRIDED else 1]
        np.testing.assert_allclose(y, expected[: scheme.output], rtol=0, atol=1e-13)


@settings(max_examples=60)
@given(
    st.tuples(st.integers(1, 3), st.integers(1, 13), st.integers(1, 13)),
    st.tuples(st.integers(0, 2), st.integers(0, 2)),
    st.tuples(st.integers(1, 4), st.integers(1, 4)),
    st.booleans(),
)
def test_the_array_code_is_a_convolution(images, padding, channels, strided):
    stride, padding = ((2, 2), (1, 1)) if strided else ((1, 1), padding)
    n, h, w = (max(size, 3 - 2 * pad) for size, pad in zip(images, (1, *padding)))
    x, windows, g = draw(np.random.default_rng(h * w), n, h, w, *channels, stride, padding)
    x, windows, g = (a.astype(np.float64) for a in (x, windows, g))
    y, dx, _ = exactly(x, windows, g, stride, padding)
    forward, backward = (
        (schemes.STRIDED, schemes.SPREAD) if strided else (schemes.DENSE, schemes.DENSE)
    )
    got = schemes.convolution(forward, x, windows, padding, y.shape[1:3])
    np.testing.assert_allclose(got, y, rtol=0, atol=1e-12)
    inner = (0, 0) if strided else (2 - padding[0], 2 - padding[1])
    rotated = windows[::-1, ::-1].transpose(0, 1, 3, 2)
    got = schemes.convolution(backward, g, rotated, inner, dx.shape[1:3])
    np.testing.assert_allclose(got, dx, rtol=0, atol=1e-12)


@compiled
@pytest.mark.parametrize("scheme", schemes.SCHEMES, ids=["dense", "strided", "spread"])
@pytest.mark.parametrize("name", ["b_t", "g", "a_t", "a_t.T", "g.T"])
def test_instructions_multiply_with_the_matrix(rng, scheme, name):
    matrix = getattr(scheme, name.removesuffix(".T"))
    matrix = matrix.T if name.endswith(".T") else matrix
    rows, size = matrix.shape
    width = 4

    @vector_function(width)
    def body(lanes, source, to):
        steps = lanes.steps(source, ir.IntType(64)(4 * width), size * size)
        tile = [[lanes.load(place) for place in steps[size * i :][:size]] for i in range(size)]
        places = iter(lanes.steps(to, ir.IntType(64)(4 * width), rows * rows))
        for row in transforms.transform(lanes, matrix, tile):
            for vector in row:
                lanes.store(vector, next(places))

    @numba.njit
    def run(source, to):
        body(source, to)

    x = rng.standard_normal((size, size, width)).astype(np.float32)
    y = np.zeros((rows, rows, width), np.float32)
    run(x.ctypes.data, y.ctypes.data)
    expected = np.einsum("ai,bj,ijl->abl", matrix, matrix, x.astype(np.float64))
    np.testing.assert_allclose(y, expected, rtol=0, atol=tolerances.PRODUCT32)


@compiled
@pytest.mark.parametrize("width", [4, 8, 16])
def test_a_square_is_turned(width):
    turn = vector_function(width)(transforms.turn_square)

    @numba.njit
    def run(square, row, to):
        turn(square, row, to)

    rows = np.arange(width * (width + 3), dtype=np.float32).reshape(width, -1)
    turned = np.empty((width, width), np.float32)
    run(rows.ctypes.data, rows.strides[0], turned.ctypes.data)
    np.testing.assert_array_equal(turned, rows[:, :width].T)


# -- the kernels


@vectors
@strides
@pytest.mark.parametrize("block", range(7))
def test_every_channel_count(rng, order, block, stride):
    """1 … 70, each as input and as output."""
    for c in range(10 * block + 1, 10 * block + 11):
        check(draw(rng, 1 + c % 2, 5, 6, c, 71 - c, stride), stride)


@vectors
@strides
def test_orders_by_channels_and_tiles(rng, order, stride):
    """Blocks of channels that are not full, rows longer than their channels."""
    check(draw(rng, 2, 9, 10, 130, 200, stride), stride)
    padding = (0, 2) if stride == (1, 1) else (1, 1)
    check(draw(rng, 3, 7, 7, 256, 65, stride, padding), stride, padding)


@vectors
@pytest.mark.parametrize(
    ("images", "k", "deep"),
    [((128, 4, 4, 512), 512, True), ((128, 8, 8, 256), 256, False), ((512, 8, 8, 512), 512, False)],
)
def test_few_tiles_of_many_channels_go_by_channels(images, k, deep):
    assert winograd.is_deep(winograd.forward_shape(images, k, (1, 1), (1, 1))) is deep


@vectors
@pytest.mark.parametrize("padding", [(0, 0), (1, 1), (2, 2), (0, 2)])
def test_every_image_size(rng, padding):
    least = 3 - 2 * min(padding)
    for h in range(max(least, 1), 34):
        size = 1 + h % 5, h, max(34 - h, least, 1)
        check(draw(rng, *size, 3, 5, padding=padding), padding=padding)
        if padding == (1, 1):
            check(draw(rng, *size, 5, 3, (2, 2)), (2, 2))


@vectors
@settings(max_examples=60)
@given(
    st.tuples(st.integers(1, 5), st.integers(1, 33), st.integers(1, 33)),
    st.tuples(st.integers(1, 140), st.integers(1, 140)),
    st.sampled_from([(1, 1), (2, 2)]),
)
def test_pairs_of_sizes_and_channels(images, channels, stride):
    check(draw(np.random.default_rng(sum(images)), *images, *channels, stride), stride)


@vectors
@strides
@pytest.mark.parametrize("channels", [64, 256, 512])
def test_error_of_deep_sums(rng, channels, stride):
    check(draw(rng, 4, 8, 8, channels, 64, stride), stride)
    check(draw(rng, 2, 4, 4, 64, channels, stride), stride)


@vectors
@strides
@pytest.mark.parametrize(("c", "k"), [(16, 16), (20, 70), (130, 144)])
def test_any_number_of_threads_gives_the_same_bits(
    rng, thread_counts, monkeypatch, order, c, k, stride
):
    """The work is cut for so many threads; with at least two of them it also runs on two."""
    arrays = draw(rng, 5, 13, 13, c, k, stride)
    results = []
    for count in thread_counts:
        set_threads(count)
        results.append(b"".join(a.tobytes() for a in by_winograd(*arrays, stride, (1, 1))))
    for count in (2, 3, 5, 16):
        monkeypatch.setattr(winograd, "threads", lambda count=count: count)
        results.append(b"".join(a.tobytes() for a in by_winograd(*arrays, stride, (1, 1))))
    assert len(set(results)) == 1


@vectors
@strides
@pytest.mark.parametrize("shape", [(1, 1, 1, 1, 1), (3, 9, 10, 17, 33), (2, 33, 5, 70, 129)])
def test_nothing_is_written_outside(rng, monkeypatch, guards, order, shape, stride):
    guards.surround(winograd)
    monkeypatch.setattr(winograd, "threads", lambda: 3)
    check(draw(rng, *shape, stride), stride)
    assert len(guards.wholes) == (10 if order == "channels" else 9)
    guards.check()


@vectors
@strides
@pytest.mark.parametrize("finished", ["bare", "biased", "added"])
def test_outputs_past_the_caches_are_the_same(rng, monkeypatch, order, stride, finished):
    """Only large outputs that begin at a cache line are written so."""
    x, w, residual = draw(rng, 7, 16, 12, 20, 64, stride)
    more: dict[str, Any] = {"b": rng.standard_normal(64).astype(np.float32), "relu": True}
    more = {"bare": {}, "biased": more, "added": {**more, "residual": residual}}[finished]
    outputs = []

    def shifted(size: tuple[int, ...], dtype: Any) -> np.ndarray:
        whole = np.full(np.prod(size) + 48, np.nan, dtype)
        first = -whole.ctypes.data % 64 // 4 + len(outputs) % 3
        return whole[first : first + np.prod(size)].reshape(size)

    monkeypatch.setattr(winograd, "threads", lambda: 3)
    monkeypatch.setattr(winograd, "empty", shifted)
    for least in (0, 0, 0, 1 << 40, 1 << 40, 1 << 40):
        monkeypatch.setattr(winograd, "STREAM", least)
        winograd.forward_shape.cache_clear()
        outputs.append(winograd.convolve(x, w, **more, stride=stride, padding=(1, 1)))
    winograd.forward_shape.cache_clear()
    assert [y.ctypes.data % 64 for y in outputs] == [0, 4, 8] * 2
    assert len({y.tobytes() for y in outputs}) == 1


@vectors
@strides
def test_gradients_are_adjoint(rng, stride):
    x, w, g = draw(rng, 3, 10, 7, 24, 40, stride)
    y, dx, dw = (a.astype(np.float64) for a in by_winograd(x, w, g, stride, (1, 1)))
    size = np.linalg.norm(g.astype(np.float64)) * np.linalg.norm(y)
    assert abs(np.vdot(g, y) - np.vdot(dx, x)) < tolerances.WINOGRAD32 * size
    assert abs(np.vdot(g, y) - np.vdot(dw, w)) < tolerances.WINOGRAD_WEIGHTS32 * size


@vectors
@strides
def test_views_and_read_only_arrays(rng, stride):
    x, w, g = draw(rng, 2, 8, 8, 6, 10, stride)
    expected = by_winograd(x, w, g, stride, (1, 1))
    views = [np.stack([a, a], axis=-1)[..., 0] for a in (x, w, g)]
    for view in views:
        view.flags.writeable = False
    for got, y in zip(by_winograd(*views, stride, (1, 1)), expected):
        assert got.tobytes() == y.tobytes()


HELD = """
import numpy as np
from minires.kernels import conv
from minires.kernels.isa import ISA
rng = np.random.default_rng(0)
x, w = rng.standard_normal((12, 11, 13, 21)), rng.standard_normal((3, 3, 21, 37))
def three(dtype, stride):
    a, b = x.astype(dtype), w.astype(dtype)
    p = dict(stride=(stride, stride), padding=(1, 1), dilation=(1, 1), groups=1)
    y = conv.conv2d(a, b, **p)
    dx = conv.conv2d_input_gradient(y, b, size=(11, 13), **p)
    return y, dx, conv.conv2d_weight_gradient(a, y, window=(3, 3), **p)
errors = [np.sqrt(((a - b) ** 2).mean() / (b**2).mean()) for stride in (1, 2)
          for a, b in zip(three(np.float32, stride), three(np.float64, stride))]
print(ISA.name, max(errors) < 1e-5)
"""


@pytest.mark.parametrize(
    ("settings", "name"),
    [
        ({"MINIRES_ISA": "avx2"}, "avx2"),
        ({"MINIRES_ISA": "plain"}, "plain"),
        ({"NUMBA_DISABLE_JIT": "1", "MINIRES_ISA": ""}, "plain"),
    ],
)
def test_held_down_to_less(child_env, settings, name):
    if name == "avx2" and ISA.name != "avx512":
        pytest.skip("needs a CPU with AVX-512 to hold down")
    child = subprocess.run(
        [sys.executable, "-c", HELD], env={**child_env, **settings}, capture_output=True, text=True
    )
    assert child.stdout == f"{name} True\n", child.stderr
