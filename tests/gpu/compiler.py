"""Compiles CUDA sources for any GPU without having one: NVRTC through ctypes, from its wheel."""

from __future__ import annotations

import ctypes
import re
import sysconfig
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

__all__ = ["ARCHITECTURES", "Usage", "available", "compile_for"]

ARCHITECTURES = (75, 80, 86, 89, 90, 100, 120)  # Turing to Blackwell, what CUDA 13 compiles for
USED = re.compile(
    r"entry function '(\w+)'.*?(\d+) bytes stack frame, (\d+) bytes spill stores, "
    r"(\d+) bytes spill loads.*?Used (\d+) registers",
    re.S,
)


class Usage(NamedTuple):
    """What the compiler says that a kernel uses."""

    kernel: str  # as the linker calls it
    stack: int  # bytes
    spilled: int  # bytes, written and read
    registers: int  # a thread


@cache
def _library() -> Any:
    site = Path(sysconfig.get_path("purelib"))
    found = sorted(site.glob("nvidia/*/lib/libnvrtc.so.*"))
    return ctypes.CDLL(str(found[-1])) if found else None


def available() -> bool:
    """Whether the compiler's wheel, nvidia-cuda-nvrtc, is installed."""
    return _library() is not None


def _text(library: Any, what: str, program: Any) -> str:
    size = ctypes.c_size_t()
    getattr(library, f"nvrtcGet{what}Size")(program, ctypes.byref(size))
    text = ctypes.create_string_buffer(size.value)
    getattr(library, f"nvrtcGet{what}")(program, text)
    return text.value.decode()


def compile_for(architecture: int, source: str, names: Iterable[str]) -> tuple[str, list[Usage]]:
    """Compile a source to machine code: the compiler's warnings ("" for none), and what each kernel
    uses. Raises RuntimeError with the compiler's errors.
    """
    library, program = _library(), ctypes.c_void_p()
    library.nvrtcCreateProgram(ctypes.byref(program), source.encode(), b"kernels.cu", 0, None, None)
    try:
        for name in names:
            library.nvrtcAddNameExpression(program, name.encode())
        options = ["--std=c++17", f"--gpu-architecture=sm_{architecture}", "--ptxas-options=-v"]
        values = (ctypes.c_char_p * len(options))(*(o.encode() for o in options))
        failed = library.nvrtcCompileProgram(program, len(options), values)
        log = _text(library, "ProgramLog", program)
    finally:
        library.nvrtcDestroyProgram(ctypes.byref(program))
    if failed:
        raise RuntimeError(log)
    warnings = "\n".join(line for line in log.splitlines() if "warning" in line)
    usages = [Usage(n, int(a), int(b) + int(c), int(r)) for n, a, b, c, r in USED.findall(log)]
    return warnings, usages
