"""A second process that compiles kernels while the first training step compiles its own.

On a new machine the first step of training waits for the compiler, which works on one core: first
for the kernels of the forward pass, then for those of the backward pass. So when the first function
must be compiled, another process begins at the other end: a step of ResNet-18, then of ResNet-20,
whose forward passes are computed by the NumPy references. Each loads what the other has compiled
(`kernels.compile_cache`). Nothing else passes between them: no result depends on it. It ends ten
seconds after the process that began it has compiled its last function, or with that.

There is none with one core (or NUMBA_NUM_THREADS=1), without file locks, in tests, where gradients
are off, or with MINIRES_AHEAD=0.
"""

from __future__ import annotations

import atexit
import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path

import numba
import numpy as np

from . import functional as F
from . import models, optim
from .autograd import is_grad_enabled
from .kernels import compile_cache
from .kernels.dispatch import reference
from .tensor import tensor

__all__ = ["begin", "cpu_seconds", "main"]

NETWORKS = {"resnet18": {"stem": "cifar"}, "resnet20": {"shortcut": "A"}}
IMAGES = 32  # enough for the algorithms of large batches
POLL, IDLE = 0.2, 10.0  # seconds: between two looks; after which nothing more is expected

_seconds = 0.0


def cpu_seconds() -> float:
    """CPU time that the other process took; 0 until it has ended."""
    return _seconds


def begin() -> None:
    """Start the other process, if there is to be one."""
    cores: int = numba.config.NUMBA_NUM_THREADS  # type: ignore[attr-defined]
    wanted = os.environ.get("MINIRES_AHEAD", "1") != "0" and is_grad_enabled()
    if not wanted or cores < 2 or compile_cache.fcntl is None or compile_cache.under_test():
        return
    if not Path(sys.executable or "").name.startswith("python"):  # a program that embeds it
        return
    paths = str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH", "")
    env = {**os.environ, "MINIRES_AHEAD": "0", "PYTHONPATH": os.pathsep.join(filter(None, paths))}
    quiet = subprocess.DEVNULL
    command = [sys.executable, "-P", "-c", f"from {__name__} import main; main()"]
    try:
        child = subprocess.Popen(command, env=env, stdin=quiet, stdout=quiet, stderr=quiet)
    except OSError:  # no process to be had: then without
        return
    atexit.register(_end, child)
    threading.Thread(target=_watch, args=(child,), daemon=True).start()


def _watch(child: subprocess.Popen[bytes]) -> None:
    """Wait for its end, and end it when this process has all that it needs."""
    global _seconds
    pid = 0
    while not pid:
        time.sleep(POLL)
        if compile_cache.turns.idle_seconds() > IDLE:
            _end(child)
        try:
            pid, _, usage = os.wait4(child.pid, os.WNOHANG)
        except ChildProcessError:  # where SIGCHLD is ignored the system has waited
            break
        _seconds = usage.ru_utime + usage.ru_stime  # 0 before its end
    child.returncode = 0


def _end(child: subprocess.Popen[bytes]) -> None:
    """Not by its own `kill`, which would wait for it, and lose what it took."""
    if child.returncode is None:
        with suppress(ProcessLookupError):
            os.kill(child.pid, signal.SIGKILL)


def main() -> None:
    """A training step of each network, the forward pass without the compiler."""
    rng = np.random.default_rng(0)
    for name, arguments in NETWORKS.items():
        model = models.build(name, num_classes=10, **arguments)
        optimizer = optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=5e-4)
        images = tensor(rng.standard_normal((IMAGES, 32, 32, 3), np.float32))
        with reference():
            loss = F.cross_entropy(model(images), rng.integers(0, 10, IMAGES))
        loss.backward()
        optimizer.step()
