"""What the GPU can do at most, measured: the roof over every kernel."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

from ..backend import PRECISIONS, precision, resolve_precision
from ..kernels.dispatch import KERNELS
from .clock import MOST, cupy_module, seconds

__all__ = ["copy_rate", "describe", "precisions", "product_rate", "product_rates"]


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


def copy_rate(size: int, most: int = MOST) -> float:
    """Bytes a second, read and written, of copying `size` bytes within the GPU's memory."""
    cupy = cupy_module()
    x = cupy.zeros(size // 4, cupy.float32)
    y = cupy.empty_like(x)
    return 2 * x.nbytes / seconds(lambda: cupy.copyto(y, x), most)


def product_rate(n: int, name: str, most: int = MOST) -> float:
    """Operations a second of an n x n matrix product by cuBLAS, as our convolutions make it:
    "float64", or a precision of `minires.precision`, rounding the factors included."""
    cupy = cupy_module()
    dtype = cupy.float64 if name == "float64" else cupy.float32
    x, w = cupy.ones((1, n, 1, n), dtype), cupy.ones((1, 1, n, n), dtype)
    plain = {"stride": (1, 1), "padding": (0, 0), "dilation": (1, 1), "groups": 1}
    with precision("float32" if name == "float64" else name, "cuda"):
        return 2 * n**3 / seconds(lambda: KERNELS["conv2d"](x, w, **plain), most)


def product_rates(n: int, most: int = MOST) -> dict[str, float]:
    """The rates of all types that this GPU has."""
    return {name: product_rate(n, name, most) for name in (*precisions(), "float64")}


def precisions() -> list[str]:
    """The precisions that this GPU has."""
    found = []
    for name in PRECISIONS:
        with suppress(RuntimeError):
            found.append(resolve_precision(name, "cuda"))
    return found
