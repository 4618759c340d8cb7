"""A stand-in device: the stock CuPy wheel runs on a machine without a GPU.

    from tests.gpu import device

    cupy = device.install()            # instead of `import cupy`, and before it
    x = cupy.arange(6.0)               # host memory that counts as the device's
    with device.counted() as n:
        y = x @ x
    n["launches"], n["synchronisations"], n["to_host"], n["allocations"], n["products"] ...

CuPy's tables of C functions for the CUDA runtime, driver and NVRTC point to `cpp/runtime.cpp`
instead; every kernel, CuPy's own and ours, is compiled by g++ for `tests.gpu.emulator`; cuBLAS is
`cpp/blas.cpp` over the OpenBLAS of NumPy's wheel. Fresh device memory is NaN.

    with device.forbidden("synchronise", "allocate", "copy_unpinned", "copy_to_host"):
        step()                         # RuntimeError at the first of them
    with device.capture_mode(): step() # the same, for all that a CUDA graph cannot capture
    with device.recorded() as calls:   # every launch, product and copy with its arguments
    with device.memory_limit(2**20): ...      # out of memory beyond
    with device.lost(): ...                   # every call returns cudaErrorIllegalAddress

A stream can be captured: what is queued meanwhile is kept with its arguments, not done, and done by
every launch of the graph; like CuPy, it lets none of CuPy's calls of cuBLAS pass then.

What it cannot show: time; races between blocks, streams or with the host, as every call has
finished when it returns; what CUDA itself says about a graph; denormals, fused multiply-add and
TF32 of the hardware.
What it would compute wrongly is blocked: `cupy.random`, and whatever is compiled into CuPy's wheel
(sort, FFT, solvers, CUB, cuRAND, sparse) raises.
"""

from __future__ import annotations

from .control import (
    capture_mode,
    counted,
    counts,
    forbidden,
    installed,
    lost,
    memory_limit,
    recorded,
)
from .install import install, missing, real_gpu

__all__ = [
    "capture_mode",
    "counted",
    "counts",
    "forbidden",
    "install",
    "installed",
    "lost",
    "memory_limit",
    "missing",
    "real_gpu",
    "recorded",
]
