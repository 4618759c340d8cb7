"""The stand-in device: CuPy computes on it what NumPy does, it counts, and it forbids."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tests.gpu.emulator.faulty import SAMPLES

__all__: list[str] = []

pytestmark = pytest.mark.gpu


def test_elementwise_reductions_and_indexing(cupy: Any, rng: np.random.Generator):
    a = rng.standard_normal((5, 7, 3)).astype(np.float32)
    x, i = cupy.asarray(a), cupy.asarray([4, 0, 4])
    pairs = [
        (cupy.exp(x) / (1 + x * x), np.exp(a) / (1 + a * a)),
        (x.sum(axis=(0, 1)), a.sum(axis=(0, 1))),
        (x.max(axis=2), a.max(axis=2)),
        (x.argmax(axis=1), a.argmax(axis=1)),
        (x.transpose(2, 0, 1)[:, ::-2], a.transpose(2, 0, 1)[:, ::-2]),
        (x[i], a[[4, 0, 4]]),
        (cupy.where(x > 0, x, 0), np.where(a > 0, a, 0)),
        (cupy.pad(x, 1), np.pad(a, 1)),
        (x.astype(cupy.float16), a.astype(np.float16)),
        (cupy.cumsum(x > 0), np.cumsum(a > 0)),
    ]
    for got, expected in pairs:
        assert got.dtype == expected.dtype
        np.testing.assert_allclose(got.get(), expected, rtol=2e-6, atol=1e-6)


@pytest.mark.parametrize("dtype", ["float32", "float64", "float16"])
def test_products(cupy: Any, rng: np.random.Generator, dtype: str):
    a, b = (rng.integers(-4, 5, shape).astype(dtype) for shape in ((4, 6, 7), (4, 7, 5)))
    x, y = cupy.asarray(a), cupy.asarray(b)
    np.testing.assert_array_equal((x @ y).get(), a @ b)
    np.testing.assert_array_equal((x[0] @ y[0]).get(), a[0] @ b[0])
    np.testing.assert_array_equal((y[1].T @ x[1].T).get(), b[1].T @ a[1].T)
    np.testing.assert_array_equal((x[2, 0] @ y[2]).get(), a[2, 0] @ b[2])


def test_raw_kernels(cupy: Any, rng: np.random.Generator):
    module = cupy.RawModule(
        code=SAMPLES, options=("--std=c++17",), name_expressions=["row_sums<float>", "product"]
    )
    a, b = (rng.integers(-9, 9, s).astype(np.float32) for s in ((17, 19), (19, 23)))
    c = cupy.empty((17, 23), cupy.float32)
    sizes = tuple(map(np.int32, (17, 23, 19)))
    arguments = (cupy.asarray(a), cupy.asarray(b), c, *sizes)
    module.get_function("product")((3, 3), (8, 8), arguments, shared_mem=512)
    np.testing.assert_array_equal(c.get(), a @ b)
    sums = cupy.empty(17, cupy.float32)
    module.get_function("row_sums<float>")((17,), (64,), (cupy.asarray(a), sums, np.int32(19)))
    np.testing.assert_array_equal(sums.get(), a.sum(1))


def test_no_conversion_by_accident(cupy: Any):
    x = cupy.ones(3)
    for convert in (np.asarray, lambda a: a * np.ones(3), lambda a: np.ones(3) + a):
        with pytest.raises(TypeError):
            convert(x)


def test_memory_is_fresh(cupy: Any, standin: Any):
    with cupy.cuda.using_allocator(None):
        assert cupy.isnan(cupy.empty(100)).all()


def test_counts(cupy: Any, standin: Any):
    x = cupy.ones((4, 4))
    (x + 1) @ x, float(x.sum())  # compile, and fill the pool
    with standin.counted() as n:
        y = (x + 1) @ x
    assert (n["launches"], n["products"]) == (1, 1)
    assert not any(n[k] for k in ("synchronisations", "allocations", "to_host", "to_device"))
    with standin.counted() as n:
        float(y[0, 0])
    assert (n["to_host"], n["bytes_to_host"]) == (1, 8)
    assert n["synchronisations"] > 0
    with standin.counted() as n:
        cupy.asarray(np.ones(1000))
    assert (n["to_device"], n["bytes_to_device"]) == (1, 8000)


@pytest.mark.parametrize(
    ("what", "message"),
    [
        ("synchronise", "waiting for the device while it is forbidden"),
        ("allocate", "allocation on the device while it is forbidden"),
        ("copy_to_host", "copy from the device to the host while it is forbidden"),
        ("copy_unpinned", "copy between unpinned host memory and the device"),
    ],
)
def test_forbidden(cupy: Any, standin: Any, what: str, message: str):
    x, pageable = cupy.ones(4), np.ones(4)
    x + x
    cupy.cuda.Device().synchronize()
    do = {
        "synchronise": cupy.cuda.Device().synchronize,
        "allocate": lambda: cupy.cuda.alloc(2**28),
        "copy_to_host": lambda: float(x[0]),
        "copy_unpinned": lambda: x.data.copy_from_host(pageable.ctypes.data, 32),
    }[what]
    with standin.forbidden(what):
        x + x
        with pytest.raises(RuntimeError, match=message):
            do()
        with standin.forbidden():
            do()
    do()


def test_copy_from_pinned_memory_is_allowed(cupy: Any, standin: Any):
    x, pinned = cupy.zeros(4), cupy.cuda.alloc_pinned_memory(32)
    np.frombuffer(pinned, np.float64, 4)[:] = 3
    with standin.forbidden("copy_unpinned", "synchronise"):
        x.data.copy_from_host_async(pinned.ptr, 32, cupy.cuda.Stream(non_blocking=True))
    np.testing.assert_array_equal(x.get(), 3)


def test_out_of_memory_and_a_lost_device(cupy: Any, standin: Any):
    cupy.get_default_memory_pool().free_all_blocks()
    with standin.memory_limit(2**20):
        cupy.empty(2**19, np.uint8)
        with pytest.raises(cupy.cuda.memory.OutOfMemoryError):
            cupy.empty(2**21, np.uint8)
    with standin.lost(), pytest.raises(cupy.cuda.runtime.CUDARuntimeError, match="IllegalAddress"):
        cupy.cuda.Device().synchronize()


def test_what_it_would_compute_wrongly_is_blocked(cupy: Any, standin: Any):
    with pytest.raises(NotImplementedError, match="garbage"):
        cupy.random.default_rng()
    with pytest.raises(RuntimeError):
        cupy.sort(cupy.ones(4))


def test_wrong_launches_raise(cupy: Any, standin: Any):
    kernel = cupy.RawModule(code=SAMPLES).get_function("some_return")
    with pytest.raises(RuntimeError, match="__syncthreads reached by 31 of 32"):
        kernel((1,), (32,), (cupy.zeros(32, np.int32),))
    with pytest.raises(RuntimeError, match="invalid launch"):
        kernel((1,), (2048,), (cupy.zeros(32, np.int32),))
    with pytest.raises(RuntimeError, match="named symbol not found"):
        cupy.RawModule(code=SAMPLES).get_function("absent")
