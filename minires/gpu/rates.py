"""What the GPU can do at most, measured: the roof over every kernel."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from .clock import cupy_module, seconds

__all__ = ["copy_rate", "describe", "product_rate", "product_rates"]


def describe() -> dict[str, Any]:
    """The GPU, and what runs it."""
    cupy = cupy_module()
    runtime = cupy.cuda.runtime
    found = runtime.getDeviceProperties(cupy.cuda.get_device_id())
    return {
        "name": found["name"].decode(),
        "capability": f"{found['major']}.{found['minor']}",
        "memory_gb": round(found["totalGlobalMem"] / 1e9, 1),
        "multiprocessors": found["multiProcessorCount"],
        "driver_cuda": runtime.driverGetVersion(),
        "runtime_cuda": runtime.runtimeGetVersion(),
        "cupy": cupy.__version__,
    }


def copy_rate(size: int) -> float:
    """Bytes a second, read and written, of copying `size` bytes within the GPU's memory."""
    cupy = cupy_module()
    x = cupy.zeros(size // 4, cupy.float32)
    y = cupy.empty_like(x)
    return 2 * x.nbytes / seconds(lambda: cupy.copyto(y, x))


def product_rate(n: int, dtype: str, tf32: bool = False) -> float:
    """Operations a second of an n x n matrix product; tf32: by the units for that type."""
    cupy = cupy_module()
    a, b = cupy.ones((n, n), dtype), cupy.ones((n, n), dtype)
    c = cupy.empty((n, n), dtype)
    with _tf32(cupy, tf32):
        return 2 * n**3 / seconds(lambda: cupy.matmul(a, b, out=c))


def product_rates(n: int) -> dict[str, float]:
    """The rates of all types, operations a second."""
    rates = {dtype: product_rate(n, dtype) for dtype in ("float32", "float64", "float16")}
    return {**rates, "tf32": product_rate(n, "float32", tf32=True)}


@contextmanager
def _tf32(cupy: Any, wanted: bool) -> Iterator[None]:
    core = cupy._core
    before = core.get_compute_type(cupy.float32)
    kind = core.COMPUTE_TYPE_TF32 if wanted else core.COMPUTE_TYPE_DEFAULT
    core.set_compute_type(cupy.float32, kind)
    try:
        yield
    finally:
        core.set_compute_type(cupy.float32, before)
