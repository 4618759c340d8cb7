"""The launcher: signatures read from sources, and launches that are refused for what they pass."""

from __future__ import annotations

import numpy as np
import pytest

from minires.kernels import launch
from minires.kernels.launch import (
    FOLDER,
    Parameter,
    Source,
    from_memory,
    read_signatures,
    read_text,
)
from tests.gpu import emulator
from tests.gpu.emulated import Emulated

__all__: list[str] = []

AXPY = """
#define OPTIONAL
// y += a * x (+ z): __global__ void in_a_comment(int n) does not count
template <typename T>
__global__ void __launch_bounds__(64) axpy(
    const T* __restrict__ x, T* __restrict__ y, OPTIONAL const T* z, T a, int n) {
  int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i < n) y[i] += a * x[i] + (z ? z[i] : (T)0);
}
__global__ void fill(unsigned char* out, unsigned long long value) { out[threadIdx.x] = value; }
"""
ONE = (1,), (64,)


class Recorder(Emulated):
    """Compiles nothing, and keeps what kernels would get."""

    def __init__(self) -> None:
        super().__init__()
        self.built: list[list[str]] = []
        self.calls: list[tuple] = []

    def build(self, text, names):
        self.built.append(list(names))
        return self

    def get_function(self, name):
        return lambda *call: self.calls.append((name, *call))


@pytest.fixture
def recorder(monkeypatch: pytest.MonkeyPatch) -> Recorder:
    recorder = Recorder()
    monkeypatch.setattr(launch, "platform", recorder)
    return recorder


@pytest.fixture
def source(tmp_path, monkeypatch: pytest.MonkeyPatch) -> Source:
    (tmp_path / "axpy.cu").write_text(AXPY)
    monkeypatch.setattr(launch, "FOLDER", tmp_path)
    return Source("axpy.cu")


def vectors(dtype=np.float32):
    return np.arange(5, dtype=dtype), np.ones(5, dtype)


def test_signatures_are_read():
    found = read_signatures(AXPY)
    assert list(found) == ["axpy", "fill"]
    assert (found["axpy"].generic, found["axpy"].threads) == (True, 64)
    assert (found["fill"].generic, found["fill"].threads) == (False, 1024)
    assert found["axpy"].parameters == (
        Parameter("x", "T", True, False),
        Parameter("y", "T", True, False),
        Parameter("z", "T", True, True),
        Parameter("a", "T", False, False),
        Parameter("n", "int", False, False),
    )
    assert found["fill"].parameters[0] == Parameter("out", "unsigned char", True, False)


def test_an_unknown_type_is_refused():
    with pytest.raises(ValueError, match="'short' of parameter n is none of"):
        read_signatures("__global__ void f(short n) {}")


@pytest.mark.parametrize("file", sorted(f.name for f in FOLDER.glob("*.cu")))
def test_every_source_can_be_launched(file: str):
    """Each kernel's signature is read, none is missed, and no include is left open."""
    source = Source(file)
    assert source.text.count("__global__ void") == len(source.signatures)
    assert "#include" not in source.text
    for signature in source.signatures.values():
        assert signature.threads == launch.THREADS
        assert signature.parameters


def test_what_is_included_comes_in_once(tmp_path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "a.cuh").write_text("int a;\n")
    (tmp_path / "b.cuh").write_text('#include "a.cuh"\nint b;\n')
    (tmp_path / "c.cu").write_text('#include "b.cuh"\n#include "a.cuh"\nint c;\n')
    monkeypatch.setattr(launch, "FOLDER", tmp_path)
    assert read_text("c.cu").split() == ["int", "a;", "int", "b;", "int", "c;"]


def test_numbers_take_their_parameters_type(source: Source, recorder: Recorder):
    for dtype in (np.float32, np.float64):
        x, y = vectors(dtype)
        source.launch("axpy", *ONE, x, y, None, 2, True)
        name, grid, block, args = recorder.calls.pop()
        assert name == f"axpy<{'float' if dtype is np.float32 else 'double'}>"
        assert (grid, block) == ONE
        assert args[0] is x
        assert args[2] is None
        assert [(a.dtype, a) for a in args[3:]] == [(dtype, 2.0), (np.int32, 1)]


def test_a_source_is_compiled_once_for_each_type(source: Source, recorder: Recorder):
    for dtype in (np.float32, np.float64) * 2:
        source.launch("axpy", *ONE, *vectors(dtype), None, 2.0, 5)
    source.launch("fill", *ONE, np.empty(1, np.uint8), 2**64 - 1)
    assert recorder.built == [["axpy<float>", "fill"], ["axpy<double>", "fill"], ["fill"]]


def test_an_empty_grid_is_no_launch(source: Source, recorder: Recorder):
    source.launch("axpy", (0,), (64,), *vectors(), None, 2.0, 0)
    assert not recorder.calls
    assert not recorder.built


@pytest.mark.parametrize(
    ("change", "error"),
    [
        (lambda a: a[:-1], r"axpy \(axpy.cu\): got 4 arguments for \(x, y, z, a, n\)"),
        (lambda a: [a[0], a[1].astype("f8"), *a[2:]], r"y must be a contiguous float32 .* float64"),
        (lambda a: [a[0].astype("i4"), *a[1:]], "T is float32 or float64, got int32"),
        (lambda a: [a[0][::2], *a[1:]], r"x must be .* float32 \(3,\), not contiguous"),
        (lambda a: [a[0], None, *a[2:]], "y must be .* got NoneType"),
        (lambda a: [a[0], [1.0], *a[2:]], "y must be .* got list"),
        (lambda a: [*a[:3], a[0], 5], "a must be a number for float32, got ndarray"),
        (lambda a: [*a[:4], 5.0], "n must be a number for int32, got float"),
        (lambda a: [*a[:4], None], "n must be a number for int32, got NoneType"),
    ],
)
def test_wrong_arguments_are_refused(source: Source, recorder: Recorder, change, error: str):
    with pytest.raises(TypeError, match=error):
        source.launch("axpy", *ONE, *change([*vectors(), None, 2.0, 5]))
    assert not recorder.calls


def test_numbers_that_do_not_fit_are_refused(source: Source, recorder: Recorder):
    with pytest.raises(ValueError, match="n is 2147483648, which int32 cannot hold"):
        source.launch("axpy", *ONE, *vectors(), None, 2.0, 2**31)
    with pytest.raises(ValueError, match="value is -1, which uint64 cannot hold"):
        source.launch("fill", *ONE, np.empty(1, np.uint8), -1)


def test_too_large_a_block_is_refused(source: Source, recorder: Recorder):
    with pytest.raises(ValueError, match=r"a block of \(33, 2\) but at most 64 threads"):
        source.launch("axpy", (1,), (33, 2), *vectors(), None, 2.0, 5)


def test_arrays_of_another_gpu_are_refused(source: Source, recorder: Recorder):
    recorder.device = 1
    with pytest.raises(TypeError, match="x must be .* on GPU 0, got one on GPU 1"):
        source.launch("axpy", *ONE, *vectors(), None, 2.0, 5)


def test_without_cupy_arrays_of_numpy_are_refused(source: Source):
    assert launch.CuPy().device_of(np.ones(3)) is None


def test_what_changes_between_steps_may_be_in_memory():
    assert from_memory(3) == (None, 3)
    assert from_memory(np.float64(0.5)) == (None, 0.5)
    at = np.array(0.5)
    assert from_memory(at) == (at, 0)


@pytest.mark.gpu
@pytest.mark.skipif(not emulator.available(), reason="needs g++")
def test_launches_run(source: Source, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(launch, "platform", Emulated())
    x, y = vectors()
    source.launch("axpy", *ONE, x, y, x, 2.0, 5)
    np.testing.assert_array_equal(y, 1 + 3 * x)
