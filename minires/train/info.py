"""What `minires info` prints: the machine and versions, what a network consists of, and which
algorithm computes each of its convolutions."""

from __future__ import annotations

import importlib.metadata
import io
import math
import platform
from contextlib import redirect_stdout
from typing import Any

import numpy as np

from .. import nn
from ..autograd import no_grad
from ..backend import cuda_available, precision
from ..functional.conv import pair
from ..kernels import memory
from ..kernels.dispatch import observe, reference
from ..kernels.im2col import output_size
from ..kernels.isa import ISA
from ..kernels.plan import choose_convolution
from .folder import versions
from .setup import build_model, choose_precision

__all__ = ["describe_model", "describe_plan", "describe_system", "kernel_inputs"]

SMALL = 64  # pixels: below, networks get the CIFAR stem by default


def describe_system() -> dict[str, Any]:
    """Versions, processor, threads, linear algebra library and GPU."""
    return {
        **versions(),
        "processor": _processor(),
        "cpu_features": _cpu_features(),
        "instructions": ISA.name,
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
    model = _build(name, classes, stem)
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


def _build(name: str, classes: int, stem: str | None) -> nn.Module:
    with nn.init.skip():  # drawing weights would compile a kernel
        return build_model(name, classes, stem)


def kernel_inputs(model: nn.Module, image: tuple[int, int, int]) -> dict[str, tuple[int, ...]]:
    """The shape of what each layer's kernel gets, by layer, for two images of shape (h, w, c).

    A layer of which no kernel sees the weights by themselves is left out.

    >>> from minires import models
    >>> kernel_inputs(models.resnet20(), (8, 8, 3))["layer2.0.conv1"]
    (2, 8, 8, 16)
    """
    layers = {
        module.weight.numpy().ctypes.data: path
        for path, module in model.named_modules()
        if isinstance(module, nn.Conv2d)
    }
    found: dict[str, tuple[int, ...]] = {}

    def see(_kernel: str, _which: str, x: Any, *more: Any) -> None:
        for array in more:
            path = layers.get(array.ctypes.data) if isinstance(array, np.ndarray) else None
            if path is not None:
                found[path] = x.shape

    with no_grad(), reference(), observe(see):  # the references need not be compiled
        model.train()(np.zeros((2, *image), np.float32))
    return found


def describe_plan(
    name: str,
    size: tuple[int, int, int] = (128, 32, 32),
    stem: str | None = None,
    operands: str = "float32",
) -> dict[str, Any]:
    """The algorithm of each convolution of a network, for a batch of size (n, h, w), in the
    precision `operands`, "float32" or "bf16".

    `multiplications` are those of a plain product for the whole batch. Without `stem`, small images
    get the CIFAR stem. Raises ConfigError for an unknown name or stem, and for a precision that the
    CPU does not have.

    >>> describe_plan("resnet20", (64, 32, 32))["layers"][0]["input"]
    [64, 32, 32, 3]
    """
    if stem is None and min(size[1:]) < SMALL:
        stem = "cifar"
    operands = choose_precision(operands, "cpu")
    model, layers = _build(name, 10, stem), []
    modules: dict[str, Any] = dict(model.named_modules())
    for path, shape in kernel_inputs(model, (*size[1:], 3)).items():
        conv, x = modules[path], (size[0], *shape[1:])
        stride, padding, dilation = (
            pair("Conv2d", what, getattr(conv, what), least=0)
            for what in ("stride", "padding", "dilation")
        )
        w = conv.weight.shape
        p, q = (output_size(x[1 + i], w[i], stride[i], padding[i], dilation[i]) for i in (0, 1))
        with precision(operands):
            plan = choose_convolution(x, w, stride, padding, dilation, conv.groups, np.float32)
        layers.append(
            {
                "name": path,
                "input": list(x),
                "weight": list(w),
                "stride": list(stride),
                "groups": conv.groups,
                "multiplications": size[0] * p * q * math.prod(w),
                "algorithm": plan,
            }
        )
    found = {"model": name, "batch": size[0], "precision": operands, "instructions": ISA.name}
    return {**found, "layers": layers}


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
    "avx512bf16",
    "avx512vnni",
    "amx-tile",
    "amx-bf16",
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
