"""Compiles CUDA C++ with g++ into shared libraries, once each: they are kept by their content."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import sysconfig
import tempfile
from collections.abc import Iterable
from functools import cache
from pathlib import Path

__all__ = ["FLAVOUR", "available", "build_cache", "build_module", "compile_library"]

CPP = Path(__file__).parent / "cpp"
FLAVOUR = os.environ.get("MINIRES_EMULATOR", "plain")
SANITIZER = ["-O1", "-g", "-fno-omit-frame-pointer"]
FLAGS = {
    "plain": ["-O1", "-DEMULATOR_POISON"],
    "asan": [*SANITIZER, "-fsanitize=address,undefined", "-fno-sanitize=vptr"],
    "tsan": [*SANITIZER, "-fsanitize=thread", "-DEMULATOR_THREADS"],
}
# -fno-gnu-unique: else modules that have the same kernel<float> would share its __shared__ memory
COMMON = ["-std=c++17", "-fPIC", "-shared", "-pthread", "-U_FORTIFY_SOURCE", "-ffp-contract=off"]
COMMON += ["-fno-gnu-unique", "-fno-strict-aliasing", "-w", "-fpermissive"]

DYNAMIC = re.compile(
    r"extern\s+__shared__\s+(?:(?:__align__|alignas)\s*\(\s*\d+\s*\)\s*)?"
    r"([\w:]+(?:\s+\w+)*)\s+(\w+)\s*\[\s*\]\s*;"
)
KERNEL = re.compile(
    r"(template\s*<[^{;]*>\s*)?(?:extern\s+\"C\"\s+)?__global__\s+"
    r"(?:__launch_bounds__\s*\([^)]*\)\s*)?void\s+(?:__launch_bounds__\s*\([^)]*\)\s*)?(\w+)\s*\("
)


def available() -> bool:
    """Whether g++ is there."""
    return shutil.which("g++") is not None


@cache
def build_cache() -> Path:
    """The folder of compiled libraries: MINIRES_GPU_CACHE, else one of this user in the temporary
    folder."""
    given = os.environ.get("MINIRES_GPU_CACHE")
    folder = Path(given or Path(tempfile.gettempdir()) / f"minires-gpu-rig-{os.getuid()}")
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    return folder


@cache
def cuda_headers() -> list[str]:
    """-I for the headers of CUDA wheels, where any is installed."""
    site = Path(sysconfig.get_path("purelib"))
    return [f"-I{p.parent}" for p in sorted(site.glob("nvidia/*/include/vector_types.h"))]


@cache
def _headers() -> str:
    return "".join(p.read_text() for p in sorted(CPP.iterdir()))


def compile_library(source: str, flags: Iterable[str]) -> Path:
    """The shared library of a C++ source, compiled unless it is kept. Raises RuntimeError."""
    command = ["g++", *COMMON, *flags, f"-I{CPP}"]
    key = hashlib.sha256("\0".join([source, _headers(), *command]).encode()).hexdigest()[:24]
    library = build_cache() / f"{key}.so"
    if library.exists():
        return library
    with tempfile.TemporaryDirectory(dir=build_cache()) as folder:
        file = Path(folder) / "kernel.cpp"
        file.write_text(source)
        made = Path(folder) / "kernel.so"
        run = subprocess.run([*command, str(file), "-o", str(made)], capture_output=True, text=True)
        if run.returncode:
            errors = [line for line in run.stderr.splitlines() if "error" in line] or [run.stderr]
            raise RuntimeError("g++: " + "\n".join(errors[:20]))
        made.rename(library)  # whole or not at all, also when two processes build it
    return library


@cache
def engine(flavour: str) -> Path:
    """The library that runs blocks and threads."""
    name = "threads.cpp" if flavour == "tsan" else "fibers.cpp"
    return compile_library(f'#include "{name}"\n', FLAGS[flavour])


def build_module(
    source: str,
    names: Iterable[str] | None = None,
    options: Iterable[str] = (),
    flavour: str = FLAVOUR,
) -> Path:
    """The library of a CUDA source with a table of its kernels.

    names: as in CUDA, `moments<float>`; None for every kernel that is no template.
    """
    source = DYNAMIC.sub(r"EMULATOR_DYNAMIC_SHARED(\1, \2);", source)
    if names is None:
        names = [name for template, name in KERNEL.findall(source) if not template]
    rows = ", ".join(f'emulator::entry("{n}", &{n})' for n in names)
    table = f"static const emulator::Entry emulator_table[] = {{{rows or '{}'}}};\n"
    count = f"static const int emulator_count = {len(list(names))};\n"
    parts = ['#include "language.h"\n#line 1 "kernel.cu"\n', source, "\n", table, count]
    parts += ['#include "module.h"\n']
    return compile_library("".join(parts), [*FLAGS[flavour], *options, *cuda_headers()])
