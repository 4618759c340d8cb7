"""Where compiled kernels are kept, so that only the first run on a machine waits for the compiler.

Numba can keep what it compiled, but decides by the time stamp of a function's own file whether that
is still right: after an edit of a function that is compiled into its callers, the callers in other
files stay old. It also does not see settings that were read at import, such as MINIRES_ISA. So the
folder is named by a hash of all that matters: every file of kernels/, the versions of Numba and
LLVM, the CPU, and the instruction set.

It is in the user's cache folder ($XDG_CACHE_HOME/minires, ~/.cache/minires) or, where
NUMBA_CACHE_DIR is set, in that. Folders that no process asked for in a month are deleted; deleting
any of them by hand is safe.

Several processes may share a folder. Numba writes each file whole, but numbers the files of one
function: two processes that compile it for different types at a time would both write the first
one, and a third could load the wrong code. So the names get the process's id.

The first kernel that a process must compile is announced by a line on stderr, except under pytest.

This module is imported before any kernel is defined.
"""

from __future__ import annotations

import getpass
import hashlib
import os
import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import llvmlite
import numba
from llvmlite import binding as llvm
from numba.core import caching, event

from .isa import ISA

__all__ = ["FOLDER", "cache_folder", "delete_unused", "fingerprint"]

PREFIX = "minires-"  # of the folders' names


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


def delete_unused(base: Path, days: float = 30) -> None:
    """Delete the folders of compiled kernels that nobody has used for so long."""
    for folder in base.glob(f"{PREFIX}*"):
        try:
            if time.time() - folder.stat().st_mtime > days * 86400:
                shutil.rmtree(folder, ignore_errors=True)
        except OSError:  # another process was faster
            pass


def _name_files_by_process() -> None:
    original = caching.IndexDataCacheFile._data_name  # type: ignore[attr-defined]

    def data_name(self: Any, number: int) -> str:
        return f"{os.getpid()}-{original(self, number)}"

    caching.IndexDataCacheFile._data_name = data_name  # type: ignore[attr-defined]


def cache_folder(name: str) -> Path:
    """A folder of that name that can be written to, among the user's or else in a temporary one."""
    try:
        folder = _users_folder() / name
        new = not folder.exists()
        folder.mkdir(parents=True, exist_ok=True)
        if os.access(folder, os.W_OK):
            os.utime(folder)  # in use
            if new:
                delete_unused(folder.parent)
            return folder
    except (OSError, RuntimeError):  # a read-only or unknown home
        pass
    folder = Path(tempfile.gettempdir()) / f"minires-{getpass.getuser()}" / name
    folder.mkdir(parents=True, exist_ok=True)
    return folder


class _Announcement(event.Listener):
    """Says once that kernels are being compiled, which a user would else take for a hang."""

    said = False

    def on_start(self, event: Any) -> None:
        function = getattr(event.data["dispatcher"], "py_func", None)
        ours = getattr(function, "__module__", "").startswith(f"{__package__}.")
        if self.said or not ours:
            return
        self.said = True
        tested = "pytest" in sys.modules or "PYTEST_CURRENT_TEST" in os.environ
        if sys.stderr is not None and not tested:
            clear = "\r\033[K" if sys.stderr.isatty() else ""  # there may be a progress bar
            text = f"compiling kernels for {ISA.name} (once: up to a minute, kept in {FOLDER}) ..."
            print(f"{clear}minires: {text}", file=sys.stderr, flush=True)

    def on_end(self, event: Any) -> None:
        pass


FOLDER = cache_folder(PREFIX + fingerprint(Path(__file__).parent, ISA.name))
_name_files_by_process()
numba.config.CACHE_DIR = str(FOLDER)  # type: ignore[attr-defined]
event.register("numba:compile", _Announcement())
