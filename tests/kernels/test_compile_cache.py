"""The folder of compiled kernels: named by what matters, in the right place, shared safely."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from typing import Any

import numba
import pytest
from numba.core.dispatcher import Dispatcher

from minires.kernels import compile_cache
from minires.kernels.compile_cache import cache_folder, delete_unused, fingerprint
from minires.kernels.isa import ISA

__all__: list[str] = []


def test_the_name_changes_with_every_file_and_setting(tmp_path):
    (tmp_path / "one.py").write_text("a = 1")
    names = [fingerprint(tmp_path, "avx2"), fingerprint(tmp_path, "plain")]
    (tmp_path / "one.py").write_text("a = 2")
    names.append(fingerprint(tmp_path, "avx2"))
    (tmp_path / "two.py").write_text("")
    names.append(fingerprint(tmp_path, "avx2"))
    assert len(set(names)) == 4
    assert names[-1] == fingerprint(tmp_path, "avx2")


def test_the_folder_is_the_users(tmp_path, monkeypatch):
    monkeypatch.delenv("NUMBA_CACHE_DIR", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    if sys.platform == "linux":
        assert cache_folder("minires-a") == tmp_path / "cache" / "minires" / "minires-a"
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path / "mine"))
    assert cache_folder("minires-a") == tmp_path / "mine" / "minires-a"
    assert (tmp_path / "mine" / "minires-a").is_dir()


def test_without_a_folder_of_the_users_a_temporary_one(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path / "file"))
    monkeypatch.setattr("tempfile.gettempdir", lambda: str(tmp_path))
    folder = cache_folder("minires-a")
    assert folder.is_dir()
    assert folder.parent.parent == tmp_path


def test_only_old_folders_of_ours_are_deleted(tmp_path):
    for name in ("minires-old", "minires-new", "other"):
        (tmp_path / name / "inner").mkdir(parents=True)
        if name != "minires-new":
            os.utime(tmp_path / name, (time.time() - 40 * 86400,) * 2)
    delete_unused(tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["minires-new", "other"]


def test_kernels_are_kept_there():
    assert str(compile_cache.FOLDER) == numba.config.CACHE_DIR


COMPILE = """
import sys
import numpy as np
from minires.kernels.im2col import gather
for dtype in sys.argv[1:]:
    x, columns = np.arange(12, dtype=dtype).reshape(1, 2, 2, 3), np.zeros((1, 2, 2, 1, 1, 3), dtype)
    gather(x, columns, 0, 1, 1, 0, 0, 1, 1)
    assert (columns.ravel() == x.ravel()).all()
print(sum(gather.stats.cache_hits.values()))
"""


FAIL = """
import fcntl
import numba
from minires.kernels.compile_cache import FOLDER
from minires.kernels.im2col import gather
try:
    gather(*"arguments")
except numba.TypingError as error:
    print(type(error).__name__)
(lock,) = FOLDER.rglob("*.gather-*.lock")
fcntl.flock(lock.open("w"), fcntl.LOCK_EX | fcntl.LOCK_NB)  # raises if it is still held
"""

compiled = pytest.mark.skipif(numba.config.DISABLE_JIT, reason="nothing is compiled")


@compiled
def test_processes_share_the_folder(tmp_path, child_env):
    """Two processes begin with different types at a time: each type is compiled once."""
    env = {**child_env, "NUMBA_CACHE_DIR": str(tmp_path)}

    def start(*dtypes: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-c", COMPILE, *dtypes]
        return subprocess.Popen(command, env=env, stdout=subprocess.PIPE, text=True)

    pair = start("float32", "float64"), start("float64", "float32")
    for child in pair:
        child.communicate()
        assert child.returncode == 0
    last = start("float32", "float64")
    found = last.communicate()[0]
    assert last.returncode == 0
    if compile_cache.fcntl is None:
        assert found in ("1\n", "2\n")  # one entry may have been overwritten
    else:
        assert found == "2\n"
        assert len([*tmp_path.rglob("*.gather-*.nbc")]) == 2


@compiled
@pytest.mark.skipif(compile_cache.fcntl is None, reason="there are no such locks")
def test_nobody_waits_for_ever(tmp_path, child_env):
    """For a process that was halted while it compiled; and one that failed is not waited for."""
    patient = "from minires.kernels import compile_cache\ncompile_cache.PATIENCE = 0.5\n"
    env = {**child_env, "NUMBA_CACHE_DIR": str(tmp_path)}

    def run(code: str) -> str:
        command = [sys.executable, "-c", code, "float32"]
        return subprocess.run(command, env=env, capture_output=True, text=True, check=True).stdout

    assert run(FAIL) == "TypingError\n"
    assert run(COMPILE) == "0\n"
    (lock,) = tmp_path.rglob("*.gather-*.lock")
    assert run(COMPILE) == "1\n"
    for path in tmp_path.rglob("*.gather-*.nb*"):
        path.unlink()
    with lock.open("w") as held:
        compile_cache.fcntl.flock(held, compile_cache.fcntl.LOCK_EX)
        assert run(patient + COMPILE) == "0\n"
    assert run(COMPILE) == "1\n"


@compiled
def test_compilation_is_announced_once(tmp_path, child_env):
    """One line from a cold cache however much is compiled, none from a warm one or in a test."""
    env = {**child_env, "NUMBA_CACHE_DIR": str(tmp_path)}
    outside = {name: value for name, value in env.items() if name != "PYTEST_CURRENT_TEST"}

    def run(env: dict[str, str], *dtypes: str) -> tuple[str, str]:
        command = [sys.executable, "-c", COMPILE, *dtypes]
        child = subprocess.run(command, env=env, capture_output=True, text=True)
        return child.stdout, child.stderr

    out, err = run(outside, "float32", "float64")
    assert out == "0\n"
    assert err.startswith(f"minires: compiling kernels for {ISA.name} (once: ")
    assert str(tmp_path) in err
    assert err.count("\n") == 1
    assert run(outside, "float32", "float64") == ("2\n", "")
    assert run(env, "int32") == ("0\n", "")


PACK = """
import numpy as np
from minires.kernels.direct_loops import pack_weights
w, u = np.ones((1, 64), np.float32), np.zeros((1, 64), np.float32)
pack_weights(w.ctypes.data, u.ctypes.data, 1, 1, 64, False, 1)
print(u.sum(), sum(pack_weights.stats.cache_hits.values()))
"""


@pytest.mark.skipif(not ISA.width, reason="plain code has no vector kernels")
def test_an_edited_kernel_changes_its_callers(root, tmp_path, child_env):
    """`copy_vector` is compiled into kernels in other files."""
    copy = tmp_path / "minires" / "kernels"
    shutil.copytree(root / "kernels", copy, ignore=shutil.ignore_patterns("__pycache__"))
    (tmp_path / "minires" / "__init__.py").touch()
    env = {**child_env, "PYTHONPATH": str(tmp_path), "NUMBA_CACHE_DIR": str(tmp_path / "cache")}

    def run() -> str:
        command = [sys.executable, "-c", PACK]
        child = subprocess.run(command, env=env, cwd=tmp_path, capture_output=True, text=True)
        return child.stdout or child.stderr

    assert run() == "64.0 0\n"
    assert run() == "64.0 1\n"
    text, line = (copy / "simd.py").read_text(), "lanes.store(lanes.load(x, mask), to, mask)"
    assert line in text
    changed = line.replace("lanes.load(x, mask)", "lanes.constant(2.0)")
    (copy / "simd.py").write_text(text.replace(line, changed))
    assert run() == "128.0 0\n"


def closed_over(function: Any) -> tuple[Any, ...]:
    """The plain values that a compiled function's closure fixes."""
    cells = [cell.cell_contents for cell in function.__closure__ or ()]
    return tuple(value for value in cells if isinstance(value, int | tuple | str))


@compiled
def test_no_two_compiled_functions_have_one_name():
    """Code from the cache and code compiled now are linked by names: one name, one code."""
    found: dict[tuple[str, str], set[tuple[Any, ...]]] = {}
    modules = [m for name, m in sys.modules.items() if name.startswith("minires.kernels.")]
    for value in [v for module in modules for v in vars(module).values()]:
        if isinstance(value, Dispatcher):
            function = value.py_func
            name = function.__module__, function.__qualname__
            found.setdefault(name, set()).add((function.__code__.co_code, closed_over(function)))
    assert len(found) > 50
    assert {name: codes for name, codes in found.items() if len(codes) > 1} == {}
