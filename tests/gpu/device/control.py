"""Counts what happened on the stand-in device, and forbids or breaks things on it."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

__all__ = ["Libraries", "capture_mode", "counted", "counts", "forbidden", "installed", "lost"]
__all__ += ["memory_limit", "recorded"]

FORBID = {"synchronise": 1, "allocate": 2, "copy_unpinned": 4, "copy_to_host": 8}
ILLEGAL_ADDRESS = 700  # cudaErrorIllegalAddress: the device is of no use afterwards


class _Blas(ctypes.Structure):
    _fields_ = [(name, ctypes.c_long) for name in ("products", "tf32", "half")]


class Libraries:
    """The libraries of the stand-in, once they are loaded."""

    runtime: Any = None
    blas: Any = None
    compiled = 0  # modules handed to CuPy

    @classmethod
    def loaded(cls, runtime: Any, blas: Any) -> None:
        """Remember them."""
        cls.runtime, cls.blas = runtime, blas
        runtime.standin_counts.restype = ctypes.py_object
        runtime.standin_limit.argtypes = [ctypes.c_size_t]
        runtime.standin_forbid.restype = runtime.standin_lose.restype = None
        runtime.standin_recorded.restype = ctypes.py_object
        blas.blas_counts.restype = ctypes.POINTER(_Blas)
        ours = (
            ctypes.cast(f, ctypes.c_void_p) for f in (runtime.standin_note, runtime.standin_queue)
        )
        blas.blas_connect(*ours)


def installed() -> bool:
    """Whether CuPy runs on the stand-in in this process."""
    return Libraries.runtime is not None


def counts() -> dict[str, int]:
    """Everything since the beginning."""
    blas = Libraries.blas.blas_counts().contents
    found = {name: getattr(blas, name) for name, _ in _Blas._fields_}
    return {**Libraries.runtime.standin_counts(), **found, "modules": Libraries.compiled}


@contextmanager
def counted() -> Iterator[dict[str, int]]:
    """What the block did; filled in when it ends."""
    before, result = counts(), dict[str, int]()
    yield result
    result.update({name: value - before[name] for name, value in counts().items()})


@contextmanager
def forbidden(*what: str) -> Iterator[None]:
    """These raise RuntimeError inside the block: synchronise, allocate, copy_unpinned,
    copy_to_host. Nested: the inner block's list counts; forbidden() allows everything."""
    before = _State.forbidden
    _State.set(sum(FORBID[name] for name in what))
    try:
        yield
    finally:
        _State.set(before)


@contextmanager
def capture_mode() -> Iterator[None]:
    """All that a CUDA graph could not capture raises inside the block: waiting, allocating, copies
    to the host or of unpinned memory.
    """
    with forbidden(*FORBID):
        yield


@contextmanager
def recorded() -> Iterator[list[bytes]]:
    """Every launch, product and copy of the block with all its arguments; filled in at the end."""
    calls: list[bytes] = []
    Libraries.runtime.standin_record(1)
    try:
        yield calls
    finally:
        calls += Libraries.runtime.standin_recorded()
        Libraries.runtime.standin_record(0)


class _State:
    forbidden = 0

    @classmethod
    def set(cls, value: int) -> None:
        cls.forbidden = value
        Libraries.runtime.standin_forbid(value)


@contextmanager
def lost() -> Iterator[None]:
    """The device fails inside the block: every call that uses it does."""
    Libraries.runtime.standin_lose(ILLEGAL_ADDRESS)
    try:
        yield
    finally:
        Libraries.runtime.standin_lose(0)


@contextmanager
def memory_limit(more: int) -> Iterator[None]:
    """Inside the block there are `more` bytes beyond those in use."""
    Libraries.runtime.standin_limit(counts()["used"] + more)
    try:
        yield
    finally:
        Libraries.runtime.standin_limit(0)
