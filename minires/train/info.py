"""What `minires info` prints: the machine and versions, and what a network consists of."""

from __future__ import annotations

import importlib.metadata
import io
import platform
from contextlib import redirect_stdout
from typing import Any

import numpy as np

from ..backend import cuda_available
from ..kernels import memory
from .folder import versions
from .setup import build_model

__all__ = ["describe_model", "describe_system"]


def describe_system() -> dict[str, Any]:
    """Versions, processor, threads, linear algebra library and GPU."""
    return {
        **versions(),
        "processor": _processor(),
        "cpu_features": _cpu_features(),
        "threads": memory.threads(),
        "blas": _blas(),
        "cupy": _version_of("cupy", "cupy-cuda12x", "cupy-cuda13x"),
        "cuda": cuda_available(),
    }


def describe_model(name: str, classes: int = 10, stem: str | None = None) -> dict[str, Any]:
    """The layers of a network with their parameters' shapes (memory layout) and counts.

    Raises ConfigError for an unknown name or stem.

    >>> describe_model("resnet20")["parameters"]
    269722
    """
    model = build_model(name, classes, stem)
    layers = []
    for path, module in model.named_modules():
        own = {n: p for n, p in module.named_parameters() if "." not in n}
        if not own and any(True for _ in module.children()):
            continue  # a container: what is in it comes by itself
        layers.append(
            {
                "name": path,
                "type": type(module).__name__,
                "shapes": {n: list(p.shape) for n, p in own.items()},
                "parameters": sum(p.size for p in own.values()),
            }
        )
    total = sum(p.size for p in model.parameters())
    return {"model": name, "classes": classes, "layers": layers, "parameters": total}


def _processor() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            for line in file:
                if line.startswith("model name"):
                    return line.partition(":")[2].strip()
    except OSError:
        pass  # not Linux
    return platform.processor() or platform.machine()


def _cpu_features() -> list[str]:
    """What LLVM, which compiles the kernels, will use of the processor."""
    import llvmlite.binding as llvm

    features = llvm.get_host_cpu_features()
    return sorted(name for name, there in features.items() if there and name in LLVM_FEATURES)


LLVM_FEATURES = {
    "avx",
    "avx2",
    "fma",
    "avx512f",
    "avx512bw",
    "avx512vl",
    "avx512vnni",
    "amx-tile",
    "neon",
    "sve",
}


def _blas() -> str:
    with redirect_stdout(io.StringIO()):
        config: Any = np.show_config(mode="dicts")
    blas = config.get("Build Dependencies", {}).get("blas", {})
    return f"{blas.get('name', 'unknown')} {blas.get('version', '')}".strip()


def _version_of(*names: str) -> str | None:
    for name in names:
        try:
            return importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return None
