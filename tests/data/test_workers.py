"""Worker processes: what they import, how they end, and what ends them."""

from __future__ import annotations

import gc
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from minires.data.task import Limits, Task
from minires.data.workers import InProcess, Workers, usable_cores

from .photos import gradient, make_folder

__all__: list[str] = []

LIMITS = Limits(10**6)
PATIENCE = 20.0  # seconds: a busy machine


def eventually(condition: Callable[[], Any]) -> Any:
    """Wait until it is true."""
    deadline = time.monotonic() + PATIENCE
    while not (found := condition()):
        assert time.monotonic() < deadline, "it never came true"
        time.sleep(0.01)
    return found


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


@pytest.fixture
def picture(tmp_path: Path) -> str:
    gradient(30, 20).save(tmp_path / "picture.png")
    return str(tmp_path / "picture.png")


def test_a_worker_imports_neither_numba_nor_numpy(picture: str):
    workers = Workers(1, 3, 8, LIMITS)
    workers.submit(Task(2, [picture], 8))
    assert workers.wait(2).done
    (pid,) = workers.pids
    if not Path(f"/proc/{pid}/maps").exists():
        pytest.skip("needs /proc")
    ours, its = (Path(f"/proc/{p}/maps").read_text() for p in ("self", pid))
    for library in ("llvmlite", "numpy"):
        assert library in ours
        assert library not in its
    assert "PIL" in its
    workers.close()
    assert not alive(pid)
    workers.close()


def test_they_do_what_the_caller_would(picture: str):
    tasks = [Task(slot, [picture], 8, (0, 0, 0, slot), 0.1, True, 0.4) for slot in range(5)]
    alone, workers = InProcess(5, 8, LIMITS), Workers(2, 5, 8, LIMITS)
    for engine in (alone, workers):
        for task in tasks:
            engine.submit(task, 1000)
        for task in reversed(tasks):  # in any order
            assert engine.wait(task.slot).done
    np.testing.assert_array_equal(workers.images, alone.images)
    assert workers.images.any()
    assert workers.seconds > 0 < alone.seconds
    workers.close()


def test_a_picture_that_ends_its_worker(tmp_path: Path, picture: str):
    """It is tried once more, in a fresh worker; the tasks behind it are not lost."""
    if not Path("/proc/self/fd").exists():
        pytest.skip("needs /proc")
    pipe = tmp_path / "pipe.png"
    os.mkfifo(pipe)
    held = os.open(pipe, os.O_RDWR)  # so that opening it does not wait, but reading does
    workers = Workers(1, 3, 8, LIMITS)
    for slot, file in enumerate((picture, pipe, picture)):
        workers.submit(Task(slot, [str(file)], 8))
    assert workers.wait(0).done
    for deaths in (1, 2):
        (pid,) = workers.pids
        eventually(lambda pid=pid: holds(pid, pipe))
        os.kill(pid, signal.SIGKILL)
        if deaths == 1:
            workers._receive()  # the news of it
    outcome = workers.wait(1)
    assert not outcome.done
    assert outcome.reasons == ["decoding it ended the worker with status -9"]
    assert workers.wait(2).done
    os.close(held)
    workers.close()


def holds(pid: int, path: Path) -> bool:
    """Whether a process has a file open (Linux)."""
    for link in Path(f"/proc/{pid}/fd").glob("*"):
        try:
            if os.readlink(link) == str(path):
                return True
        except OSError:
            continue
    return False


def test_a_worker_that_cannot_start(monkeypatch: pytest.MonkeyPatch, picture: str):
    monkeypatch.setattr("minires.data.workers.PROGRAM", "raise SystemExit(3)")
    workers = Workers(1, 1, 8, LIMITS)
    workers.submit(Task(0, [picture], 8))
    with pytest.raises(RuntimeError, match="could not start: status 3"):
        workers.wait(0)
    workers.close()


def test_more_tasks_than_a_pipe_holds(monkeypatch: pytest.MonkeyPatch, picture: str):
    monkeypatch.setattr("minires.data.workers.MOST_WAITING", 3)
    workers = Workers(1, 40, 2, LIMITS)
    for slot in range(40):
        workers.submit(Task(slot, [picture], 2))
    workers.drain()
    assert all(image.any() for image in workers.images)
    workers.close()


def test_they_end_with_the_last_reference(picture: str):
    workers = Workers(2, 1, 8, LIMITS)
    pids = workers.pids
    assert all(map(alive, pids))
    del workers
    gc.collect()
    assert not any(map(alive, pids))


KILLED = """
import sys, time
from minires.data import PictureLoader, PictureReader, picture_folder
pictures = picture_folder(sys.argv[1], val_fraction=0, test_fraction=0)
reader = PictureReader(2)
batches = iter(PictureLoader(pictures, 4, size=64, reader=reader))
next(batches)
print(*reader.pids, flush=True)
time.sleep(60)
"""


@pytest.mark.parametrize(
    "number", [signal.SIGKILL, pytest.param(signal.SIGINT, marks=pytest.mark.slow)]
)
def test_they_end_with_the_process(number: int, tmp_path: Path, child_env: dict[str, str]):
    make_folder(tmp_path, count=12)
    command = [sys.executable, "-c", KILLED, str(tmp_path)]
    before = shared_memory()
    with subprocess.Popen(command, env=child_env, stdout=subprocess.PIPE, stderr=-3) as process:
        assert process.stdout is not None
        pids = [int(word) for word in process.stdout.readline().split()]
        assert len(pids) == 2
        assert all(map(alive, pids))
        process.send_signal(number)
        process.wait(PATIENCE)
    eventually(lambda: not any(map(alive, pids)))
    assert shared_memory() <= before


def shared_memory() -> set[str]:
    return set(os.listdir("/dev/shm")) if os.path.isdir("/dev/shm") else set()


def test_cores():
    assert 1 <= usable_cores() <= (os.cpu_count() or 1)
