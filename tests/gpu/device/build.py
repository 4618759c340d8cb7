"""Compiles the stand-in's own libraries, and CUDA sources as CuPy hands them over."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sysconfig
import tempfile
from collections.abc import Iterable
from pathlib import Path

from tests.gpu.emulator.build import build_cache, build_module, compile_library

__all__ = ["blas_library", "empty_library", "module_library", "runtime_library"]

CPP = Path(__file__).parent / "cpp"
LINK = "-Wl,-soname,{}"
UNDEFINED = re.compile(r" U (cublas\w+)@(\S+)$", re.M)
DEFINED = re.compile(r"\bint (cublas\w+)\(")


def runtime_library() -> Path:
    """The CUDA runtime and driver."""
    include = sysconfig.get_path("include")
    return compile_library((CPP / "runtime.cpp").read_text(), ["-O1", f"-I{include}"])


def blas_library() -> tuple[Path, str]:
    """cuBLAS, and the name that CuPy's wheel looks for.

    Every function that the wheel wants and blas.cpp lacks returns CUBLAS_STATUS_NOT_SUPPORTED.
    """
    spec = importlib.util.find_spec("cupy_backends")
    assert spec is not None
    assert spec.submodule_search_locations
    wheel = next(Path(spec.submodule_search_locations[0]).glob("cuda/libs/cublas.*.so"))
    table = ["nm", "-D", "--undefined-only", str(wheel)]
    symbols = subprocess.run(table, capture_output=True, text=True, check=True).stdout
    wanted = dict(UNDEFINED.findall(symbols))
    source = (CPP / "blas.cpp").read_text()
    products = ("gemm_v2", "gemmBatched", "gemmStridedBatched")
    here = {*DEFINED.findall(source), *(f"cublas{x}{name}" for x in "SD" for name in products)}
    rest = [f"int {name}() {{ return NOT_SUPPORTED; }}" for name in sorted(wanted.keys() - here)]
    source += 'extern "C" {\n' + "\n".join(rest) + "\n}\n"
    version = next(iter(wanted.values()))
    # the linker wants a file for the version of the symbols, kept in the source's own folder
    script = _text_file(version, f"{version} {{ global: *; }};\n")
    flags = ["-O1", LINK.format(version), f"-Wl,--version-script={script}"]
    return compile_library(source, flags), version


def _text_file(name: str, text: str) -> Path:
    """A text file beside the compiled libraries."""
    file = build_cache() / f"{name}.map"
    if not file.exists() or file.read_text() != text:
        with tempfile.NamedTemporaryFile("w", dir=build_cache(), delete=False) as made:
            made.write(text)
        os.replace(made.name, file)  # whole or not at all
    return file


def empty_library(name: str) -> Path:
    """A library of this name with nothing in it."""
    return compile_library("", [LINK.format(name)])


def module_library(source: str, options: Iterable[str], names: list[str] | None) -> Path:
    """A CUDA source as `cupy.RawModule` or CuPy itself compiles it."""
    kept = [o for o in options if o.startswith(("-D", "-I"))]
    # CuPy's headers, without the parts of CUDA and its C++ library that only NVRTC reads
    kept = [o for o in kept if not re.search(r"^-I.*(_cccl|cuda-\d|/cuda/|nvidia/)", o)]
    if re.search(r"#include\s*[<\"]cupy/", source):
        kept = [f"-I{CPP}", *kept, "-include", "cupy_kernels.h"]
    return build_module(source, names, kept)
