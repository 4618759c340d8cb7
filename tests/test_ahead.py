"""The process that compiles ahead: when there is one, what it compiles, and how it ends."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numba
import numpy as np
import pytest

import minires as mr
from minires import ahead
from minires.kernels import compile_cache
from minires.kernels.dispatch import observe
from minires.kernels.plan import choose_convolution
from minires.kernels.winograd import forward_shape, is_deep

__all__: list[str] = []


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """The commands that `begin` starts, as where no test runs and there are two cores."""
    commands: list[list[str]] = []

    def start(command: list[str], **_: Any) -> None:
        commands.append(command)
        raise OSError("no more processes")

    monkeypatch.setattr(ahead.subprocess, "Popen", start)
    monkeypatch.setattr(compile_cache, "under_test", lambda: False)
    monkeypatch.setattr(compile_cache, "fcntl", object())
    monkeypatch.setattr(numba.config, "NUMBA_NUM_THREADS", 2)
    monkeypatch.delenv("MINIRES_AHEAD", raising=False)
    return commands


def test_it_is_this_module_and_training_goes_on_without_it(started):
    ahead.begin()
    assert started == [[sys.executable, "-P", "-c", "from minires.ahead import main; main()"]]


@pytest.mark.parametrize(
    "why", ["test", "one core", "no locks", "embedded", "variable", "no gradients"]
)
def test_there_is_none(started, monkeypatch, why):
    if why == "test":
        monkeypatch.setattr(compile_cache, "under_test", lambda: True)
    if why == "one core":
        monkeypatch.setattr(numba.config, "NUMBA_NUM_THREADS", 1)
    if why == "no locks":
        monkeypatch.setattr(compile_cache, "fcntl", None)
    if why == "embedded":
        monkeypatch.setattr(sys, "executable", "/usr/bin/blender")
    if why == "variable":
        monkeypatch.setenv("MINIRES_AHEAD", "0")
    with mr.enable_grad(), mr.no_grad() if why == "no gradients" else mr.enable_grad():
        ahead.begin()
    assert started == []


@pytest.mark.compiled
def test_it_compiles_the_backward_pass_alone(monkeypatch):
    monkeypatch.setattr(ahead, "IMAGES", 2)
    seen: dict[str, set[str]] = {}
    with observe(lambda name, which, *_: seen.setdefault(name, set()).add(which)):
        ahead.main()
    assert seen["conv2d"] == seen["normalise_batch"] == seen["softmax_loss"] == {"reference"}
    backward = {name for name, ways in seen.items() if "cpu" in ways}
    assert {"normalise_gradient", "conv_norm_gradient", "sgd_step", "collect"} <= backward
    assert {"conv2d_input_gradient", "conv2d_weight_gradient"} <= backward


@pytest.mark.parametrize(("size", "c"), [(32, 16), (32, 64), (16, 128), (8, 256), (4, 512)])
@pytest.mark.parametrize(("window", "stride"), [(3, 1), (3, 2), (1, 2)])
def test_its_batch_takes_the_algorithms_of_large_ones(size, c, window, stride):
    if stride > 1:  # such layers come before
        size, c = 2 * size, c // 2
    w, ones = (window, window, c, c * stride), (1, 1)
    found = set()
    for n in (ahead.IMAGES, 128):
        x, pads = (n, size, size, c), (window // 2, window // 2)
        chosen = choose_convolution(x, w, (stride, stride), pads, ones, 1, np.float32)
        deep = chosen == "winograd" and is_deep(forward_shape(x, c, ones, ones))
        found.add((chosen, deep))
    assert len(found) == 1


HELPED = """
import time
import numpy as np
from minires import ahead
from minires.kernels.im2col import gather
ahead.IDLE = 1.0
for dtype in ("float32", "float64"):
    x, columns = np.arange(12, dtype=dtype).reshape(1, 2, 2, 3), np.zeros((1, 2, 2, 1, 1, 3), dtype)
    gather(x, columns, 0, 1, 1, 0, 0, 1, 1)
time.sleep(ahead.IDLE + 5 * ahead.POLL)
print(ahead.cpu_seconds())
"""


@pytest.mark.skipif(
    numba.config.DISABLE_JIT or compile_cache.fcntl is None,  # type: ignore[attr-defined]
    reason="there is none",
)
def test_it_ends_when_nothing_more_is_compiled(tmp_path: Path, child_env: dict[str, Any]):
    """A moment after the last function; its CPU time is known then."""
    env = {**child_env, "NUMBA_CACHE_DIR": str(tmp_path), "NUMBA_NUM_THREADS": "2"}
    env.pop("PYTEST_CURRENT_TEST", None)
    env.pop("MINIRES_AHEAD", None)
    command = [sys.executable, "-c", HELPED]
    child = subprocess.run(command, env=env, capture_output=True, text=True)
    assert child.returncode == 0, child.stderr
    assert child.stderr.count("\n") == 1, child.stderr  # compiling kernels ...
    assert float(child.stdout) > 0
    assert not [p for p in Path("/proc").glob("[0-9]*/environ") if bytes(tmp_path) in read(p)]


def read(path: Path) -> bytes:
    """What is in a file of /proc, nothing when its process has ended."""
    try:
        return path.read_bytes()
    except OSError:
        return b""
