"""Processes that decode pictures beside the training, and the same without processes.

A worker is a fresh interpreter running `decode.serve` (never a fork: OpenMP's threads would not
survive one). Tasks go down a pipe, answers of a few bytes come up another; the pixels themselves
are written into memory that both sides map, so nobody waits for the training's thread to take them.
A worker is told whole batches ahead, hence works on through a long kernel that holds the GIL.

Nothing is left behind: the shared memory has no name, and a worker ends when its pipe does,
however this process went.
"""

from __future__ import annotations

import contextlib
import json
import mmap
import os
import selectors
import subprocess
import sys
import tempfile
import time
import weakref
from typing import Any

import numpy as np

from . import decode
from .task import Limits, Outcome, Task

__all__ = ["InProcess", "Workers", "usable_cores"]

MOST_WAITING = 1000  # tasks a worker: their answers must fit into its pipe
PICTURE_COST = 50_000  # of a task, beside the bytes of its file: about what resizing takes
# What a worker imports is in packages that would import Numba: empty ones take their place.
PROGRAM = """
import json, sys, types
folder, file, length, *limits = json.loads(sys.argv[1])
for name in ("minires", "minires.data"):
    sys.modules[name] = types.ModuleType(name)
    sys.modules[name].__path__ = [folder]
from minires.data.decode import Limits, serve
serve(file, length, Limits(*limits))
"""
PATIENCE = 2.0  # seconds from asking a worker to end until it is made to


def usable_cores() -> int:
    """How many cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


class InProcess:
    """Decodes in the caller, when the result is asked for."""

    def __init__(self, slots: int, size: int, limits: Limits) -> None:
        self.images = np.empty((slots, size, size, 3), np.uint8)
        self.limits, self.seconds = limits, 0.0
        self._tasks: dict[int, Task] = {}

    def submit(self, task: Task, cost: int = 0) -> None:
        """Ask for a picture; `cost` means nothing here."""
        self._tasks[task.slot] = task

    def wait(self, slot: int) -> Outcome:
        """Decode it."""
        start = time.thread_time()
        memory = self.images.reshape(-1).data
        outcome = decode.do(self._tasks.pop(slot), self.limits, memory)
        self.seconds += time.thread_time() - start
        return outcome

    def drain(self) -> None:
        """Forget what was submitted."""
        self._tasks.clear()

    def close(self) -> None:
        """Nothing to close."""


class Workers:
    """`count` processes that put pictures into `images` uint8 (slots, size, size, 3).

    `submit` a task, `wait` for its slot; tasks are done in no particular order. `seconds` is the
    CPU time that the workers have taken. Raises RuntimeError when a worker cannot work at all; a
    picture that ends its worker twice counts as unreadable.
    """

    def __init__(self, count: int, slots: int, size: int, limits: Limits) -> None:
        if os.name != "posix":
            raise RuntimeError("worker processes need a POSIX system; decode with --workers 0")
        self._length = max(slots * size * size * 3, 1)
        self._file = _nameless_file(self._length)
        memory = mmap.mmap(self._file.fileno(), self._length)
        self.images = np.frombuffer(memory, np.uint8)[: slots * size * size * 3]
        self.images = self.images.reshape(slots, size, size, 3)
        self.limits = limits
        self._outcomes: dict[int, Outcome] = {}
        self._processes: list[_Process] = []
        self._end = weakref.finalize(self, _end, self._processes, self._file)
        self._selector = selectors.DefaultSelector()
        for _ in range(count):
            self._start()

    @property
    def seconds(self) -> float:
        """CPU time of all workers so far, those that have ended included."""
        return sum(process.seconds for process in self._processes)

    @property
    def pids(self) -> list[int]:
        """The numbers of the processes that are alive."""
        return [p.popen.pid for p in self._processes if p.popen.poll() is None]

    def submit(self, task: Task, cost: int = 0) -> None:
        """Ask for a picture; `cost` is about how long it will take, the size of its file."""
        while True:
            process = min((p for p in self._processes if p.alive), key=lambda p: p.load)
            if len(process.waiting) < MOST_WAITING:
                return process.give(task, cost + PICTURE_COST)
            self._receive()

    def wait(self, slot: int) -> Outcome:
        """The outcome of the task that was submitted for this slot."""
        while slot not in self._outcomes:
            self._receive()
        return self._outcomes.pop(slot)

    def settle(self) -> None:
        """Wait until everything that was submitted is done."""
        while any(p.waiting for p in self._processes if p.alive):
            self._receive()

    def drain(self) -> None:
        """The same, and forget it."""
        self.settle()
        self._outcomes.clear()

    def close(self) -> None:
        """End the processes. The shared memory goes with the last array that uses it."""
        self._selector.close()
        self._end()

    def _start(self) -> _Process:
        process = _Process(self._file.fileno(), self._length, self.limits)
        self._processes.append(process)
        self._selector.register(process.answers, selectors.EVENT_READ, process)
        return process

    def _receive(self) -> None:
        """Take the answers that are there; wait for one if there are none."""
        for key, _ in self._selector.select():
            process: _Process = key.data
            lines = process.read()
            if lines is None:
                self._replace(process)
                continue
            for line in lines:
                if line == decode.READY:
                    process.ready = True
                    continue
                outcome = Outcome(*json.loads(line))
                process.take(outcome)
                self._outcomes[outcome.slot] = outcome

    def _replace(self, dead: _Process) -> None:
        """A worker is gone: another one gets its tasks. The oldest may be the culprit."""
        self._selector.unregister(dead.answers)
        status = dead.end()
        if not dead.ready:
            raise RuntimeError(f"a worker process for pictures could not start: status {status}")
        tasks = list(dead.waiting.values())
        fresh = self._start()
        oldest = tasks[0][0] if tasks else None
        if oldest is not None and oldest == dead.suspect:
            reason = f"decoding it ended the worker with status {status}"
            self._outcomes[oldest.slot] = Outcome(oldest.slot, [reason], False, 0)
            del tasks[0]
        else:
            fresh.suspect = oldest
        for task, cost in tasks:
            fresh.give(task, cost)
        dead.waiting.clear()


class _Process:
    """One worker, and what it was given to do, oldest first."""

    def __init__(self, file: int, length: int, limits: Limits) -> None:
        arguments = os.path.dirname(decode.__file__), file, length, *limits
        path = os.pathsep.join(p for p in sys.path if p)
        self.popen = subprocess.Popen(
            [sys.executable, "-P", "-c", PROGRAM, json.dumps(arguments)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            bufsize=0,
            pass_fds=(file,),
            env={**os.environ, "PYTHONPATH": path},
            process_group=0,  # the terminal's Ctrl-C is for us, not for it
        )
        self.waiting: dict[int, tuple[Task, int]] = {}
        self.suspect: Task | None = None  # its predecessor ended with this one in hand
        self.load, self.seconds = 0, 0.0
        self.alive, self.ready = True, False
        self._rest = b""

    @property
    def answers(self) -> Any:
        return self.popen.stdout

    def give(self, task: Task, cost: int) -> None:
        self.waiting[task.slot] = task, cost
        self.load += cost
        line = json.dumps(task).encode() + b"\n"
        with contextlib.suppress(BrokenPipeError):  # it is gone, as reading will tell
            while line:
                line = line[self.popen.stdin.write(line) or 0 :]  # type: ignore[union-attr]

    def read(self) -> list[bytes] | None:
        """The answers that have come; None when the process has ended."""
        data = self.answers.read(1 << 16)
        if not data:
            return None
        *lines, self._rest = (self._rest + data).split(b"\n")
        return lines

    def take(self, outcome: Outcome) -> None:
        _, cost = self.waiting.pop(outcome.slot)
        self.load -= cost
        self.seconds = outcome.seconds

    def end(self) -> int:
        """Close its pipes, so that it ends, and wait; returns its exit status."""
        self.alive = False
        for pipe in (self.popen.stdin, self.popen.stdout):
            if pipe is not None:
                pipe.close()
        try:
            return self.popen.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            self.popen.kill()
            return self.popen.wait()


def _nameless_file(length: int) -> Any:
    """A file in memory where the system has such, else one without a name."""
    if hasattr(os, "memfd_create"):
        file: Any = os.fdopen(os.memfd_create("minires-pictures"), "w+b")
    else:
        file = tempfile.TemporaryFile()  # noqa: SIM115
    file.truncate(length)
    return file


def _end(processes: list[_Process], file: Any) -> None:
    for process in processes:
        if process.alive:
            process.popen.terminate()  # all at once, then wait for each
    for process in processes:
        if process.alive:
            process.end()
    file.close()
