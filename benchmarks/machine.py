"""What a row of results says about the machine, and the memory of this process."""

from __future__ import annotations

import os
import platform
import time
from typing import Any

import minires as mr
from minires.kernels.isa import ISA
from minires.kernels.memory import threads

__all__ = ["HOLDS", "compile_alone", "cpu_name", "describe", "peak_memory"]

# environment variables that hold an engine's vector instructions down
HOLDS = ("MINIRES_ISA", "ATEN_CPU_CAPABILITY", "ONEDNN_MAX_CPU_ISA")


def cpu_name() -> str:
    """The processor, as the system calls it."""
    try:
        with open("/proc/cpuinfo") as file:
            return next(line.split(":")[1].strip() for line in file if "model name" in line)
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def describe() -> dict[str, Any]:
    """The processor, its cores, the vector instructions in use, what holds them down, threads, the
    date.
    """
    held = {name: os.environ[name] for name in HOLDS if os.environ.get(name)}
    return {
        "cpu": cpu_name(),
        "cores": os.cpu_count(),
        "isa": ISA.name,
        "held": held,
        "threads": threads(),
        "minires_version": mr.__version__,
        "date": time.strftime("%Y-%m-%d"),
    }


def compile_alone() -> None:
    """Start no second process that compiles: nothing is to run beside what is measured."""
    os.environ["MINIRES_AHEAD"] = "0"


def peak_memory() -> float:
    """The most resident memory that this process has had, MB (Linux).

    Not `ru_maxrss`: that starts from the size of the process which forked this one.
    """
    with open("/proc/self/status") as file:
        peak = next(line.split()[1] for line in file if line.startswith("VmHWM"))
    return int(peak) / 1024
