"""Where compiled kernels are kept, so that only the first run on a machine waits for the compiler.

Numba can keep what it compiled, but decides by the time stamp of a function's own file whether that
is still right: after an edit of a function that is compiled into its callers, the callers in other
files stay old. It also does not see settings that were read at import, such as MINIRES_ISA. So the
folder is named by a hash of all that matters: every file of kernels/, the versions of Numba and
LLVM, the CPU, and the instruction set.

It is in the user's cache folder ($XDG_CACHE_HOME/minires, ~/.cache/minires) or, where
NUMBA_CACHE_DIR is set, in that. Deleting it is safe.

This module is imported before any kernel is defined.
"""

from __future__ import annotations

import getpass
import hashlib
import os
import sys
import tempfile
from pathlib import Path

import llvmlite
import numba
from llvmlite import binding as llvm

from .isa import ISA

__all__ = ["FOLDER", "cache_folder", "fingerprint"]


def fingerprint(sources: Path, isa: str) -> str:
    """Sixteen hexadecimal digits that change with the files of a folder and with the machine."""
    digest = hashlib.sha256()
    for path in sorted(sources.glob("*.py")):
        digest.update(path.name.encode() + b"\0" + path.read_bytes() + b"\0")
    features = llvm.get_host_cpu_features().flatten()
    about = numba.__version__, llvmlite.__version__, llvm.get_host_cpu_name(), features, isa
    digest.update("\0".join(about).encode())
    return digest.hexdigest()[:16]


def _users_folder() -> Path:
    if wanted := os.environ.get("NUMBA_CACHE_DIR"):
        return Path(wanted)
    if sys.platform == "win32":
        base = Path(os.environ.get("LOCALAPPDATA", Path.home() / "AppData" / "Local"))
    elif sys.platform == "darwin":
        base = Path.home() / "Library" / "Caches"
    else:
        base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return base / "minires"


def cache_folder(name: str) -> Path:
    """A folder of that name that can be written to, among the user's or else in a temporary one."""
    try:
        folder = _users_folder() / name
        folder.mkdir(parents=True, exist_ok=True)
        if os.access(folder, os.W_OK):
            return folder
    except (OSError, RuntimeError):  # a read-only or unknown home
        pass
    folder = Path(tempfile.gettempdir()) / f"minires-{getpass.getuser()}" / name
    folder.mkdir(parents=True, exist_ok=True)
    return folder


FOLDER = cache_folder(fingerprint(Path(__file__).parent, ISA.name))
numba.config.CACHE_DIR = str(FOLDER)  # type: ignore[attr-defined]
