"""Where compiled kernels are kept, so that only the first run on a machine waits for the compiler.

Numba can keep what it compiled, but decides by the time stamp of a function's own file whether that
is still right: after an edit of a function that is compiled into its callers, the callers in other
files stay old. It also does not see settings that were read at import, such as MINIRES_ISA. So the
folder is named by a hash of all that matters: every file of kernels/, the versions of Numba and
LLVM, the CPU, and the instruction set.

It is in the user's cache folder ($XDG_CACHE_HOME/minires, ~/.cache/minires) or, where
NUMBA_CACHE_DIR is set, in that. Folders that no process asked for in a month are deleted; deleting
any of them by hand is safe.

Several processes may share a folder, and then share the work: what one compiles, the others wait
for and load. They lock the function's own file beside its index; should that not be possible, or
take too long, they compile it as well. Numba writes each file whole, but numbers the files of one
function: two processes that compile it for different types at a time would both write the first
one, and a third could load the wrong code. So the names get the process's id.

The first kernel that a process must compile, or wait for, is announced by a line on stderr, except
under pytest.

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
from collections.abc import Callable
from pathlib import Path
from typing import Any

import llvmlite
import numba
from llvmlite import binding as llvm
from numba.core import caching, event

from .isa import ISA

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

__all__ = [
    "FOLDER",
    "at_first",
    "cache_folder",
    "delete_unused",
    "fingerprint",
    "turns",
    "under_test",
]

PREFIX = "minires-"  # of the folders' names
at_first: list[Callable[[], None]] = []  # called when a process must compile its first kernel
PATIENCE = 120.0  # seconds to wait at most for another process that compiles a function


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


class Turns(event.Listener):
    """One process at a time compiles a function for this folder, and says so once."""

    def __init__(self) -> None:
        self._said = False
        self._held: dict[str, int] = {}  # file names and descriptors
        self._depth, self._ended = 0, time.monotonic()

    def load(self, cache: Any, load: Callable[[], Any]) -> Any:
        """What the cache has for a function, once no other process is compiling it.

        Where it has nothing, this process has the turn, until it saves.
        """
        found = load()
        if found is None and _is_ours(cache._py_func) and self._take(_lock_path(cache)):
            found = load()  # what another has saved meanwhile
            if found is not None:
                self._give_back(_lock_path(cache))
        return found

    def save(self, cache: Any, save: Callable[[], None]) -> None:
        try:
            save()
        finally:
            self._give_back(_lock_path(cache))

    def on_start(self, event: Any) -> None:
        self._depth += 1
        if _is_ours(getattr(event.data["dispatcher"], "py_func", None)):
            self._say()
            while at_first:
                at_first.pop()()

    def on_end(self, event: Any) -> None:
        self._depth, self._ended = self._depth - 1, time.monotonic()
        dispatcher = event.data["dispatcher"]
        failed = tuple(event.data["args"]) not in getattr(dispatcher, "overloads", ())
        if failed and _is_ours(getattr(dispatcher, "py_func", None)):  # there is nothing to save
            self._give_back(_lock_path(dispatcher._cache))

    def idle_seconds(self) -> float:
        """For how long this process has compiled nothing."""
        return 0.0 if self._depth else time.monotonic() - self._ended

    def _take(self, path: str) -> bool:
        """Lock the file, waiting for whoever has it; False where that cannot be done."""
        if fcntl is None or path in self._held:
            return False
        until, taken = time.monotonic() + PATIENCE, False
        try:
            os.makedirs(os.path.dirname(path), exist_ok=True)
            self._held[path] = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
            while not taken and time.monotonic() < until:  # who has it may have been halted
                taken = self._try_to_lock(path)
        except OSError:  # a file system without locks
            pass
        finally:
            if not taken:
                self._give_back(path)
        return taken

    def _try_to_lock(self, path: str) -> bool:
        assert fcntl is not None
        try:
            fcntl.flock(self._held[path], fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self._say()
            time.sleep(0.02)
            self._ended = time.monotonic()
            return False
        return True

    def _give_back(self, path: str) -> None:
        if path in self._held:
            os.close(self._held.pop(path))

    def _say(self) -> None:
        """A line that keeps a user from taking the wait for a hang."""
        if not self._said and sys.stderr is not None and not under_test():
            clear = "\r\033[K" if sys.stderr.isatty() else ""  # there may be a progress bar
            text = f"compiling kernels for {ISA.name} (once: up to a minute, kept in {FOLDER}) ..."
            print(f"{clear}minires: {text}", file=sys.stderr, flush=True)
        self._said = True


def under_test() -> bool:
    """Whether this is pytest, or a process that a test started."""
    return "pytest" in sys.modules or "PYTEST_CURRENT_TEST" in os.environ


def _is_ours(function: Any) -> bool:
    return getattr(function, "__module__", "").startswith(f"{__package__}.")


def _lock_path(cache: Any) -> str:
    file = getattr(cache, "_cache_file", None)  # a function may be without a cache
    return "" if file is None else f"{file._index_path}.lock"


def _compile_in_turns() -> None:
    load, save = caching.Cache.load_overload, caching.Cache.save_overload

    def load_overload(self: Any, sig: Any, target_context: Any) -> Any:
        return turns.load(self, lambda: load(self, sig, target_context))

    def save_overload(self: Any, sig: Any, data: Any) -> None:
        turns.save(self, lambda: save(self, sig, data))

    caching.Cache.load_overload = load_overload
    caching.Cache.save_overload = save_overload
    event.register("numba:compile", turns)


turns = Turns()
FOLDER = cache_folder(PREFIX + fingerprint(Path(__file__).parent, ISA.name))
_name_files_by_process()
numba.config.CACHE_DIR = str(FOLDER)  # type: ignore[attr-defined]
_compile_in_turns()
