"""Runs CUDA C++ kernels on the CPU: the very source of a `.cu` file, compiled by g++.

    from tests.gpu import emulator

    module = emulator.Module(Path("kernels/norm.cu").read_text(), ["moments<float>"])
    module.launch("moments<float>", (channels,), (256,), (x, mean, n, channels), shared=0)

Arrays are contiguous NumPy arrays (or None for a null pointer); the kernel writes into them.
Numbers take their parameter's type. A wrong count, dtype or layout raises TypeError; what the
engine finds raises LaunchError: a barrier that not all threads reach, different barriers, a
deadlock, a bad launch, writes beside an array (it stands between marks). Shared memory begins
every block as 0xff bytes, so that a float read too early is NaN. `order=1, 2 ...` runs blocks and
threads in a random order: the result must not change.

Flavours, chosen when Python starts (FLAVOUR, from the environment variable MINIRES_EMULATOR):

    plain   fibers; what is said above
    asan    fibers, with AddressSanitizer and UndefinedBehaviorSanitizer
    tsan    one OS thread a CUDA thread, with ThreadSanitizer: races within a block; keep grids and
            blocks small, and warp operations need full masks

Sanitizers must be loaded before Python, so a test runs them in a child:

    emulator.sanitized("tsan", "-m", "pytest", "tests/gpu/test_norm.py")   # CompletedProcess
    emulator.reports(child)     # the sanitizers' findings in its output, [] when clean

What cannot be found: races between blocks (they run one after another), wrong use of denormals,
fused multiply-add, TF32; time means nothing. No inline PTX, `wmma`, textures, cooperative groups.
A kernel can tell by `#if defined(MINIRES_EMULATOR)`. cuda_fp16.h and cuda_bf16.h are those of a
CUDA wheel (nvidia-cuda-runtime, nvidia-cuda-crt), where one is installed.
"""

from __future__ import annotations

from .build import FLAVOUR, available, build_cache
from .module import LaunchError, Module
from .sanitize import reports, sanitized

__all__ = [
    "FLAVOUR",
    "LaunchError",
    "Module",
    "available",
    "build_cache",
    "reports",
    "sanitized",
]
