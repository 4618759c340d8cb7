"""Devices: which array module a value belongs to, and how it moves; only here is CuPy sought. And
the precision of products.

CuPy is imported lazily: it costs a second, and most machines have no GPU.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from types import ModuleType
from typing import Any

import numpy as np

from .kernels import bf16
from .kernels.activation import add_to
from .kernels.dispatch import array_module
from .kernels.precision import operands

__all__ = [
    "PRECISIONS",
    "add_to",
    "array_module",
    "cuda_available",
    "device_of",
    "gpu_remedy",
    "is_array",
    "precision",
]
__all__ += ["resolve_device", "resolve_precision", "to_device"]

DEVICES = ("cpu", "cuda")
PRECISIONS = ("float32", "tf32", "bf16", "fp16")
# compute capability, times ten, of the first GPUs whose tensor cores multiply so
NEEDED = {"tf32": 80, "bf16": 80, "fp16": 70}
# of the runtime, the driver and cuBLAS, in errors that are no MemoryError
FULL = "cudaErrorMemoryAllocation", "CUDA_ERROR_OUT_OF_MEMORY", "CUBLAS_STATUS_ALLOC_FAILED"


def device_of(x: Any) -> str:
    """The device that holds the array `x`: "cpu" or "cuda"."""
    return "cpu" if isinstance(x, np.ndarray) else "cuda"


def is_array(x: Any) -> bool:
    """Whether `x` is a NumPy or CuPy array."""
    return isinstance(x, np.ndarray) or type(x).__module__.split(".")[0] == "cupy"


def _cupy() -> ModuleType:
    try:
        import cupy  # type: ignore[import-not-found]
    except ModuleNotFoundError as error:
        message = "device is 'cuda' but CuPy is not installed: pip install 'minires[cuda13]'"
        raise RuntimeError(message) from error
    except ImportError as error:
        why = str(error).strip().partition("\n")[0]
        message = f"device is 'cuda' but CuPy cannot be loaded ({why}): install another build of it"
        raise RuntimeError(message) from error
    if not cupy.is_available():
        raise RuntimeError(f"device is 'cuda' but {_why_no_gpu(cupy.cuda.runtime)}")
    loaded: Any = cupy
    _check_libraries(loaded)
    return loaded


def _why_no_gpu(runtime: Any) -> str:
    built, driver = runtime.runtimeGetVersion() // 1000, runtime.driverGetVersion() // 1000
    if not driver:
        return "there is no NVIDIA driver on this machine: install it (nvidia.com/drivers)"
    if driver < built:
        return (
            f"CuPy is built for CUDA {built} and the driver for CUDA {driver}: "
            f"pip install 'minires[cuda{driver}]', or a newer driver"
        )
    return "the driver finds no GPU: look at nvidia-smi and CUDA_VISIBLE_DEVICES"


@cache
def _check_libraries(cupy: Any) -> None:
    needed = {
        "compiler NVRTC": lambda: cupy.cuda.nvrtc.getVersion(),
        "library cuBLAS": lambda: importlib.import_module("cupy_backends.cuda.libs.cublas"),
    }
    for part, load in needed.items():
        try:
            load()
        except (ImportError, OSError, RuntimeError) as error:
            wheel = f"cupy-cuda{cupy.cuda.runtime.runtimeGetVersion() // 1000}x[ctk]"
            raise RuntimeError(
                f"device is 'cuda' but CUDA's {part} is missing: pip install '{wheel}'"
            ) from error


def gpu_remedy(error: BaseException) -> str:
    """What to do about an error that CuPy raised, to be put behind its message; else "".

    >>> gpu_remedy(ValueError("of ours"))
    ''
    """
    if type(error).__module__.partition(".")[0] not in ("cupy", "cupy_backends"):
        return ""
    if isinstance(error, MemoryError) or any(word in str(error) for word in FULL):
        return "; the GPU's memory is full: a smaller batch needs less of it"
    if type(error).__name__ in ("CompileException", "NVRTCError"):
        return "; CuPy and its compiler do not fit: pip install -U 'cupy-cuda13x[ctk]' (or 12x)"
    return "; the GPU failed: start again, and if it stays so, look at nvidia-smi"


def cuda_available() -> bool:
    """Whether CuPy is installed and sees a GPU."""
    try:
        _cupy()
    except RuntimeError:
        return False
    return True


def resolve_device(name: str) -> str:
    """Turn "auto", "cpu" or "cuda" into a device that is there, or say what is missing."""
    if name == "auto":
        return "cuda" if cuda_available() else "cpu"
    if name not in DEVICES:
        raise ValueError(f"device is {name!r} but must be one of auto, cpu, cuda")
    if name == "cuda":
        _cupy()
    return name


def to_device(x: Any, device: str) -> Any:
    """The array `x` on `device`; itself when it is there already."""
    if resolve_device(device) == device_of(x):
        return x
    return _cupy().asarray(x) if device == "cuda" else x.get()


def resolve_precision(name: str, device: str = "cpu") -> str:
    """`name`, one of PRECISIONS, if the device has it; else an error says what is missing."""
    if name not in PRECISIONS:
        raise ValueError(f"precision is {name!r} but must be one of {', '.join(PRECISIONS)}")
    if device == "cpu" and name in ("tf32", "fp16"):
        raise RuntimeError(f"precision is {name!r}, which only GPUs have: on a CPU use float32")
    if device == "cpu" and name == "bf16" and not bf16.AVAILABLE:
        raise RuntimeError(
            "precision is 'bf16' but this CPU has no AVX512_BF16 instructions, or MINIRES_ISA "
            "holds them back: use float32"
        )
    if device == "cuda" and name in NEEDED:
        cupy: Any = _cupy()
        found, needed = int(cupy.cuda.Device().compute_capability), NEEDED[name]
        if found < needed:
            other = "fp16" if found >= NEEDED["fp16"] else "float32"
            raise RuntimeError(
                f"precision is {name!r}, which needs compute capability {needed / 10}, but this "
                f"GPU has {found / 10}: use {other}"
            )
    return name


@contextmanager
def precision(name: str, device: str = "cpu") -> Iterator[None]:
    """Inside this block, convolutions on `device` multiply numbers of less precision.

    "bf16" rounds to 8 bits of mantissa; on GPUs there are also "fp16" (11 bits, but only up to
    65504: scale the loss, see `optim.LossScale`) and "tf32" (11 bits). Forward and backward belong
    inside together. Weights, sums, gradients and everything that is not a convolution stay float32;
    so do, on the CPU, the convolutions that Winograd's algorithm computes (`minires info --plan
    NAME --precision bf16` lists them): they are faster and more exact as they are.

    Raises ValueError for another name, RuntimeError where the device cannot multiply so.

    >>> import minires as mr
    >>> with mr.precision("float32"):
    ...     y = mr.tensor([1.0]) * 2
    """
    with operands(resolve_precision(name, device)):
        yield
