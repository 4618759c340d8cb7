"""The emulator computes what CUDA would, and finds each of the faults planted in samples.cu."""

from __future__ import annotations

import numpy as np
import pytest

from tests.gpu import emulator
from tests.gpu.emulator.faulty import NAMES, SAMPLES

__all__: list[str] = []

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not emulator.available(), reason="needs g++"),
]


@pytest.fixture(scope="module")
def module() -> emulator.Module:
    return emulator.Module(SAMPLES, NAMES)


def faulty(macro: str) -> emulator.Module:
    return emulator.Module(SAMPLES, NAMES, {macro: 1})


def test_axpy_of_odd_sizes_and_any_order(module: emulator.Module, rng: np.random.Generator):
    for n in (1, 31, 257):
        for order in range(3):
            x, y = rng.standard_normal(n), rng.standard_normal(n)
            expected = y + 2.5 * x
            module.launch("axpy<double>", (3,), (128,), (x, y, n, 2.5), order=order)
            np.testing.assert_array_equal(y, expected)


def test_sums_of_rows(module: emulator.Module, rng: np.random.Generator):
    x = rng.integers(-9, 9, (5, 333)).astype(np.float32)
    for order in range(4):
        sums = np.empty(5, np.float32)
        module.launch("row_sums<float>", (5,), (96,), (x, sums, 333), order=order)
        np.testing.assert_array_equal(sums, x.sum(1))


def test_product_in_dynamic_shared_memory(module: emulator.Module, rng: np.random.Generator):
    a, b = (rng.integers(-9, 9, s).astype(np.float32) for s in ((17, 19), (19, 23)))
    for order in range(4):
        c = np.empty((17, 23), np.float32)
        arguments = (a, b, c, 17, 23, 19)
        module.launch("product", (3, 3), (8, 8), arguments, shared=512, order=order)
        np.testing.assert_array_equal(c, a @ b)


def test_atomics(module: emulator.Module, rng: np.random.Generator):
    bins, counts = rng.integers(0, 5, 1000).astype(np.int32), np.zeros(5, np.int32)
    module.launch("histogram", (8,), (128,), (bins, counts, 1000), order=1)
    np.testing.assert_array_equal(counts, np.bincount(bins, minlength=5))


@pytest.mark.parametrize("width", [32, 8])
def test_warp_exchanges(module: emulator.Module, width: int):
    out = np.empty((5, 64), np.int32)
    module.launch("exchanges", (1,), (64,), (out, width))
    i = np.arange(64)
    group = i // width
    for row, source in zip(out, (i + 3, i - 3, i ^ 5)):
        np.testing.assert_array_equal(row, np.where(source // width == group, source, i))
    np.testing.assert_array_equal(out[3], group * width + 2)
    votes = [sum(1 << j for j in range(32) if (32 * w + j) % 3 == 0) for w in range(2)]
    np.testing.assert_array_equal(out[4].view(np.uint32), np.repeat(votes, 32))


FUNCTIONS = ("sqrt", "rsqrt", "exp", "log", "tanh", "erf", "erfc", "fabs", "floor", "abs")


@pytest.mark.parametrize("element", ["float", "double"])
def test_functions_of_float_are_float(element: str):
    """Computed in double they would hide the roundings of a kernel."""
    calls = [f"{name}(x)" for name in FUNCTIONS] + ["fma(x, x, x)", "pow(x, x)", "max(x, x)"]
    lines = "".join(f"size[{i}] = sizeof({call});" for i, call in enumerate(calls))
    source = f"__global__ void sizes({element} x, int* size) {{ {lines} }}"
    size = np.zeros(len(calls), np.int32)
    emulator.Module(source, ["sizes"]).launch("sizes", (1,), (1,), (0.5, size))
    assert set(size) == {4 if element == "float" else 8}


# Faults that need no sanitizer


def test_shared_memory_starts_as_nan(rng: np.random.Generator):
    x, sums = np.ones((2, 64), np.float32), np.zeros(2, np.float32)
    faulty("UNINITIALISED").launch("row_sums<float>", (2,), (64,), (x, sums, 64))
    assert np.isnan(sums).all()


def test_missing_barrier_changes_results(rng: np.random.Generator):
    x, sums = np.ones((2, 64), np.float32), np.zeros(2, np.float32)
    faulty("MISSING_BARRIER").launch("row_sums<float>", (2,), (64,), (x, sums, 64))
    assert np.isnan(sums).any()


def test_write_behind_an_array():
    x, y = np.ones(64, np.float32), np.ones(64, np.float32)
    with pytest.raises(emulator.LaunchError, match="wrote behind an array"):
        faulty("OUT_OF_BOUNDS").launch("axpy<float>", (2,), (64,), (x, y, 64, 2.0))


@pytest.mark.parametrize(
    ("kernel", "message"),
    [
        ("some_return", "__syncthreads reached by 63 of 64 threads"),
        ("two_barriers", "different __syncthreads"),
        ("wrong_mask", "lane 16 calls but is not in mask 0000ffff"),
    ],
)
def test_barriers_that_not_all_reach(module: emulator.Module, kernel: str, message: str):
    with pytest.raises(emulator.LaunchError, match=message):
        module.launch(kernel, (1,), (64,), (np.zeros(64, np.int32),))


@pytest.mark.parametrize(
    ("grid", "block", "shared"),
    [((0,), (1,), 0), ((1,), (1025,), 0), ((1, 70000), (1,), 0), ((1,), (1,), 50000)],
)
def test_launches_that_no_gpu_takes(module: emulator.Module, grid, block, shared: int):
    with pytest.raises(emulator.LaunchError, match="invalid launch"):
        module.launch("some_return", grid, block, (np.zeros(64, np.int32),), shared=shared)


F, D = np.zeros(64, np.float32), np.zeros(64)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((F, F.copy(), 64), "takes 4 arguments, got 3"),
        ((D, F, 64, 1.0), "argument 0 has dtype float64 but must be float32"),
        ((np.zeros(128, np.float32)[::2], F, 64, 1.0), "argument 0 is not contiguous"),
        ((F.tolist(), F, 64, 1.0), "argument 0 is list but must be a NumPy array"),
        ((F, F, 64.5, 1.0), "argument 2 is 64.5, which no int64 holds"),
        ((F, F, F, 1.0), "argument 2 is ndarray but must be a number"),
    ],
)
def test_wrong_arguments(module: emulator.Module, arguments, message: str):
    with pytest.raises(TypeError, match=message):
        module.launch("axpy<float>", (1,), (64,), arguments)


def test_one_array_twice_is_one_memory(module: emulator.Module):
    y = np.ones(64)
    module.launch("axpy<double>", (1,), (64,), (y, y, 64, 1.0))
    np.testing.assert_array_equal(y, 2)
    with pytest.raises(TypeError, match="overlap"):
        module.launch("axpy<double>", (1,), (32,), (y[:32], y[16:48], 32, 1.0))


# Faults that sanitizers find

FAULTS = [
    ("asan", "axpy<float>", "OUT_OF_BOUNDS", "heap-buffer-overflow"),
    ("asan", "shifts", "", "shift exponent 40 is too large"),
    ("tsan", "row_sums<float>", "MISSING_BARRIER", "data race"),
    ("tsan", "product", "SECOND_BARRIER_MISSING", "data race"),
]


@pytest.mark.parametrize(("flavour", "kernel", "macro", "found"), FAULTS)
def test_sanitizer_finds_the_fault(flavour: str, kernel: str, macro: str, found: str):
    macros = [macro] if macro else []
    child = emulator.sanitized(flavour, "-m", "tests.gpu.emulator.faulty", kernel, *macros)
    assert any(found in report for report in emulator.reports(child)), child.stdout + child.stderr


@pytest.mark.parametrize("flavour", ["asan", "tsan"])
@pytest.mark.parametrize("kernel", ["axpy<float>", "row_sums<float>", "product", "histogram"])
def test_sanitizer_finds_nothing_in_a_right_kernel(flavour: str, kernel: str):
    child = emulator.sanitized(flavour, "-m", "tests.gpu.emulator.faulty", kernel)
    assert not emulator.reports(child), child.stdout + child.stderr
    assert child.returncode == 0, child.stdout + child.stderr
