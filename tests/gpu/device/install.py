"""Puts the stand-in under CuPy: its tables of C functions are changed before it is imported."""

from __future__ import annotations

import ctypes
import importlib
import importlib.metadata
import os
import re
import sys
import tempfile
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from tests.gpu import emulator
from tests.gpu.emulator.build import FLAVOUR, engine

from .build import blas_library, empty_library, module_library, runtime_library
from .control import Libraries, installed

__all__ = ["install", "missing", "real_gpu"]

VERSION = "14.2.0"  # the stand-in relies on CuPy's internals
INSTALL = "pip install -e '.[test,gpu-rig]'"
REPLACED = {
    "cupy_backends.cuda.api.runtime": "rt_",
    "cupy_backends.cuda.api.driver": "dr_",
    "cupy_backends.cuda.libs.nvrtc": "nvrtc_",
}
TYPES: dict[str, Any] = {
    "intptr_t": ctypes.c_ssize_t,
    "size_t": ctypes.c_size_t,
    "int": ctypes.c_int,
    "unsigned int": ctypes.c_uint,
    "float": ctypes.c_float,
    "PyObject *": ctypes.py_object,
}


def real_gpu() -> bool:
    """Whether the driver finds a GPU; CuPy is not imported for it."""
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return False
    count = ctypes.c_int(0)
    return (
        not driver.cuInit(0)
        and not driver.cuDeviceGetCount(ctypes.byref(count))
        and count.value > 0
    )


def missing() -> str | None:
    """What the stand-in lacks here, with the remedy; None when it can be installed."""
    try:
        found = importlib.metadata.version("cupy-cuda13x")
    except importlib.metadata.PackageNotFoundError:
        return f"needs CuPy: {INSTALL}"
    if found != VERSION:
        return f"needs CuPy {VERSION}, found {found}: {INSTALL}"
    if not emulator.available():
        return "needs g++ (on Debian and Ubuntu: apt install g++)"
    if not _openblas():
        return "needs NumPy from PyPI's wheel, for the OpenBLAS inside it: pip install numpy"
    return None


def install() -> ModuleType:
    """Import CuPy on the stand-in device and return it."""
    if installed():
        return sys.modules["cupy"]
    if "cupy" in sys.modules:
        raise RuntimeError("the stand-in device must be installed before CuPy is imported")
    if reason := missing():
        raise RuntimeError(f"the stand-in device {reason}")
    os.environ["CUPY_ACCELERATORS"] = ""  # CUB is compiled into the wheel
    os.environ.setdefault("CUPY_CACHE_DIR", tempfile.gettempdir())
    blas = _blas()
    runtime = ctypes.PyDLL(str(runtime_library()))
    modules = {name: importlib.import_module(name) for name in REPLACED}
    error = modules["cupy_backends.cuda.api.runtime"].CUDARuntimeError
    machine = ctypes.CDLL(str(engine(FLAVOUR)), mode=ctypes.RTLD_GLOBAL)
    runtime.standin_begin(ctypes.py_object(error), ctypes.c_void_p(machine._handle))
    for name, prefix in REPLACED.items():
        _replace(modules[name], prefix, runtime)
    Libraries.loaded(runtime, blas)
    cupy = importlib.import_module("cupy")
    importlib.import_module("cupy.cuda.compiler")._compile_module_with_cache = _compile
    _block(cupy)
    return cupy


def _openblas() -> Path | None:
    folder = Path(np.__file__).parents[1] / "numpy.libs"
    return next(folder.glob("libscipy_openblas64_*.so"), None)


def _blas() -> Any:
    path, name = blas_library()
    library = ctypes.CDLL(str(path), mode=ctypes.RTLD_GLOBAL)
    ctypes.CDLL(str(empty_library(name.replace("cublas", "cublasLt"))), mode=ctypes.RTLD_GLOBAL)
    if library.blas_begin(str(_openblas()).encode()):
        raise RuntimeError(f"no matrix product in {_openblas()}")
    return library


def _replace(module: Any, prefix: str, runtime: Any) -> None:
    """Point CuPy's C and Python names of every function that the stand-in has to it."""
    table = module.__pyx_capi__
    runtime.standin_replace.argtypes = [ctypes.py_object, ctypes.c_char_p, ctypes.c_void_p]
    for name, capsule in table.items():
        try:
            function = getattr(runtime, prefix + name)
        except AttributeError:
            continue
        address = ctypes.cast(function, ctypes.c_void_p)
        signature = re.search(r'"(.*)"', repr(capsule))
        assert signature
        assert not runtime.standin_replace(table, name.encode(), address)
        setattr(module, name, _from_python(signature[1], address))


def _from_python(signature: str, address: Any) -> Any:
    """A Python function for C code of the signature `int (int, int __pyx_skip_dispatch)`."""
    parts = re.fullmatch(r"(.*?) ?\((.*)\)", signature)
    assert parts
    given = [p.strip() for p in parts[2].split(",") if p.strip() != "void"]
    own = [p for p in given if "__pyx_" not in p]
    hidden = [0] * (len(given) - len(own))
    types = [TYPES[p] for p in own] + [ctypes.c_void_p] * len(hidden)
    call = ctypes.PYFUNCTYPE(TYPES[parts[1].strip()], *types)(address.value)
    return lambda *arguments: call(*arguments[: len(own)], *hidden)


def _compile(source: str, options: Any = (), *_: Any, **kwargs: Any) -> Any:
    """Instead of NVRTC: cupy.cuda.compiler's function for this."""
    from cupy.cuda.function import Module

    if kwargs.get("enable_cooperative_groups") or kwargs.get("to_ltoir"):
        raise NotImplementedError("the stand-in device has neither cooperative groups nor LTO")
    names = list(kwargs.get("name_expressions") or []) or None
    library = module_library(source, options, names)
    Libraries.compiled += 1
    module = Module()
    if names:
        module._set_mapping({name: name for name in names})
    module.load(str(library).encode())
    return module


def _block(cupy: Any) -> None:
    """Kernels that are compiled into the wheel know nothing of the stand-in."""

    def blocked(*_: Any, **__: Any) -> Any:
        raise NotImplementedError(
            "the stand-in device has none of cupy.random: it would be garbage"
        )

    for name in dir(cupy.random):
        if callable(getattr(cupy.random, name)):
            setattr(cupy.random, name, blocked)
