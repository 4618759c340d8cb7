"""A kernel: one bare-array function with a readable reference and up to two fast twins.

    @kernel(Case((2, 5, 5, 3)))
    def double(x):
        "The reference: array code that runs on NumPy and CuPy alike."
        return 2 * x

    @double.cpu(serves=lambda x: x.dtype == np.float32)
    def _double_cpu(x): ...          # Numba

    @double.cuda()
    def _double_cuda(x): ...         # CUDA C++ through CuPy

Calling `double(x)` looks at the first array: its type picks the device, and the twin runs if it
says that it serves these arguments; otherwise the reference does, and also for large arrays where
Numba is switched off. `with reference():` forces the reference, `with ran() as log:` records what
ran, and `with observe(see):` calls back with the arguments, too.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import update_wrapper
from types import ModuleType
from typing import Any, Generic, ParamSpec, TypeVar

import numba
import numpy as np

from .cases import Case

__all__ = ["KERNELS", "Kernel", "array_module", "kernel", "observe", "ran", "reference"]

P = ParamSpec("P")
R = TypeVar("R")

KERNELS: dict[str, Kernel] = {}
UNCOMPILED = 1 << 13  # elements of the largest array
_reference_only: ContextVar[bool] = ContextVar("reference_only", default=False)
_observer: ContextVar[Callable[..., None] | None] = ContextVar("kernel_observer", default=None)


def array_module(x: Any) -> ModuleType:
    """The module whose functions take `x`: numpy, or cupy for an array on the GPU."""
    if isinstance(x, (np.ndarray, np.generic)):
        return np
    return sys.modules[type(x).__module__.split(".")[0]]


def _too_long(device: str, args: Any) -> bool:
    """Whether Numba is off (NUMBA_DISABLE_JIT), and these loops in plain Python take seconds."""
    config: Any = numba.config  # type: ignore[attr-defined]
    if not config.DISABLE_JIT or device != "cpu":
        return False
    return max(getattr(a, "size", 0) for a in args) > UNCOMPILED


class Kernel(Generic[P, R]):
    """A reference function with its twins; a call runs the one that serves the arguments."""

    def __init__(self, function: Callable[P, R], cases: tuple[Case, ...]) -> None:
        update_wrapper(self, function)
        self.name = function.__name__
        self.reference = function
        self.cases = cases
        self.twins: dict[str, tuple[Callable[..., R], Callable[..., bool]]] = {}
        KERNELS[self.name] = self  # type: ignore[assignment]

    def cpu(self, serves: Callable[..., bool] = lambda *_, **__: True) -> Callable[..., Any]:
        """Decorate the Numba twin; `serves(*args, **kwargs)` says whether it takes a call."""
        return lambda twin: self._add("cpu", twin, serves)

    def cuda(self, serves: Callable[..., bool] = lambda *_, **__: True) -> Callable[..., Any]:
        """Decorate the CUDA twin."""
        return lambda twin: self._add("cuda", twin, serves)

    def _add(self, device: str, twin: Callable[..., R], serves: Callable[..., bool]) -> Any:
        self.twins[device] = twin, serves
        return twin

    def choose(self, *args: Any, **kwargs: Any) -> tuple[str, Callable[..., R]]:
        """Which implementation these arguments get: ("cpu" | "cuda" | "reference", function)."""
        if not _reference_only.get():
            for array in args:
                if hasattr(array, "dtype"):
                    break
            device = "cpu" if isinstance(array, np.ndarray) else "cuda"
            found = self.twins.get(device)
            if found and not _too_long(device, args) and found[1](*args, **kwargs):
                return device, found[0]
        return "reference", self.reference

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        which, function = self.choose(*args, **kwargs)
        if (see := _observer.get()) is not None:
            see(self.name, which, *args)
        return function(*args, **kwargs)

    def __repr__(self) -> str:
        return f"<kernel {self.name}: {', '.join(['reference', *self.twins])}>"


def kernel(*cases: Case) -> Callable[[Callable[P, R]], Kernel[P, R]]:
    """Decorate a kernel's reference; `cases` are the sample calls its tests are made from."""
    return lambda function: Kernel(function, cases)


@contextmanager
def reference() -> Iterator[None]:
    """Run every kernel's reference inside this block."""
    token = _reference_only.set(True)
    try:
        yield
    finally:
        _reference_only.reset(token)


@contextmanager
def observe(see: Callable[..., None]) -> Iterator[None]:
    """Call see(kernel, "reference" | "cpu" | "cuda", *positional arguments) at each kernel call
    inside this block."""
    token = _observer.set(see)
    try:
        yield
    finally:
        _observer.reset(token)


@contextmanager
def ran() -> Iterator[list[tuple[str, str]]]:
    """Record (kernel, "reference" | "cpu" | "cuda") for every kernel call inside this block."""
    log: list[tuple[str, str]] = []
    with observe(lambda name, which, *_: log.append((name, which))):
        yield log
