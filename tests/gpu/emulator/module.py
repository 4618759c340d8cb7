"""Loads a compiled CUDA source and launches its kernels on NumPy arrays."""

from __future__ import annotations

import ctypes
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from typing import Any

import numpy as np

from .build import FLAVOUR, build_module, engine

__all__ = ["LaunchError", "Module"]

GUARD, MARK = 256, 0xA5  # bytes on either side of an array, and what they hold
Three = ctypes.c_uint * 3


class LaunchError(RuntimeError):
    """What the emulator found wrong with a launch."""


class _Entry(ctypes.Structure):
    _fields_ = [
        ("name", ctypes.c_char_p),
        ("kernel", ctypes.c_void_p),
        ("call", ctypes.c_void_p),
        ("count", ctypes.c_int),
        ("kinds", ctypes.POINTER(ctypes.c_char_p)),
    ]


class _Memory(ctypes.Structure):
    _fields_ = [("start", ctypes.c_void_p), ("size", ctypes.c_size_t)]


@cache
def _engine() -> Any:
    # PyDLL keeps the interpreter's lock: launches of several threads follow one another
    library = ctypes.PyDLL(str(engine(FLAVOUR)), mode=ctypes.RTLD_GLOBAL)
    library.emulator_error.restype = ctypes.c_char_p
    library.emulator_launch.argtypes = [
        ctypes.POINTER(_Entry),
        ctypes.POINTER(ctypes.c_void_p),
        Three,
        Three,
        ctypes.c_size_t,
        _Memory,
    ]
    return library


class Module:
    """The kernels of one CUDA source. defines: macros, {"BLOCK": 64}."""

    def __init__(
        self,
        source: str,
        names: Iterable[str] | None = None,
        defines: Mapping[str, Any] | None = None,
    ) -> None:
        options = [f"-D{name}={value}" for name, value in (defines or {}).items()]
        names = None if names is None else list(names)
        self._engine = _engine()
        self._library = ctypes.PyDLL(str(build_module(source, names, options)))
        self._library.emulator_find.restype = ctypes.POINTER(_Entry)
        self._library.emulator_statics.restype = _Memory

    def kinds(self, name: str) -> list[str]:
        """What each parameter is, as NumPy spells dtypes: "f4"; "*f4" for a pointer."""
        entry = self._find(name)
        return [entry.contents.kinds[i].decode() for i in range(entry.contents.count)]

    def launch(
        self,
        name: str,
        grid: Sequence[int],
        block: Sequence[int],
        arguments: Sequence[Any],
        *,
        shared: int = 0,
        order: int = 0,
    ) -> None:
        """Run a kernel. shared: bytes of dynamic shared memory; order: 0, or the seed of a random
        order of blocks and threads."""
        kinds = self.kinds(name)
        if len(arguments) != len(kinds):
            raise TypeError(f"{name}: takes {len(kinds)} arguments, got {len(arguments)}")
        copies = _Copies()
        values = [
            _argument(f"{name}: argument {i}", kind, value, copies)
            for i, (kind, value) in enumerate(zip(kinds, arguments))
        ]
        pointers = (ctypes.c_void_p * max(1, len(values)))(*map(ctypes.addressof, values))
        self._engine.emulator_seed(order)
        statics = self._library.emulator_statics()
        grids, blocks = Three(*_three(grid)), Three(*_three(block))
        entry = self._find(name)
        if self._engine.emulator_launch(entry, pointers, grids, blocks, shared, statics):
            raise LaunchError(f"{name}: {self._engine.emulator_error().decode()}")
        copies.back(name)

    def _find(self, name: str) -> Any:
        entry = self._library.emulator_find(name.encode())
        if not entry:
            raise LaunchError(f"{name}: no such kernel in this module")
        return entry


class _Copies:
    """Arrays between marks while a kernel runs; one that is given twice is one copy."""

    def __init__(self) -> None:
        self.made: dict[int, tuple[np.ndarray, np.ndarray]] = {}

    def address(self, a: np.ndarray) -> int:
        for given, whole in self.made.values():
            start = given.ctypes.data
            if start <= a.ctypes.data and a.ctypes.data + a.nbytes <= start + given.nbytes:
                return whole.ctypes.data + GUARD + a.ctypes.data - start
            if np.may_share_memory(given, a):
                raise TypeError(
                    "arrays of a launch overlap: give the one that contains the other first"
                )
        # under AddressSanitizer a block of exactly this size is better than marks
        guard = 0 if FLAVOUR == "asan" else GUARD
        whole = np.full(a.nbytes + GUARD + guard, MARK, np.uint8)
        whole[GUARD : GUARD + a.nbytes] = a.reshape(-1).view(np.uint8)
        self.made[a.ctypes.data] = a, whole
        return whole.ctypes.data + GUARD

    def back(self, name: str) -> None:
        for a, whole in self.made.values():
            left, right = whole[:GUARD], whole[GUARD + a.nbytes :]
            if (left != MARK).any() or (right != MARK).any():
                where = "in front of" if (left != MARK).any() else "behind"
                raise LaunchError(f"{name}: wrote {where} an array {a.shape} of {a.dtype}")
            if a.flags.writeable:
                a.reshape(-1).view(np.uint8)[:] = whole[GUARD : GUARD + a.nbytes]


def _argument(where: str, kind: str, value: Any, copies: _Copies) -> Any:
    if not kind.startswith("*"):
        if isinstance(value, np.ndarray) or not np.isscalar(value):
            raise TypeError(f"{where} is {type(value).__name__} but must be a number ({kind})")
        exact = np.array(value).astype(kind)
        if exact.dtype.kind in "iu" and exact.item() != value:
            raise TypeError(f"{where} is {value!r}, which no {exact.dtype} holds")
        return ctypes.create_string_buffer(exact.tobytes(), exact.nbytes)
    if value is None:
        return ctypes.c_void_p(0)
    if not isinstance(value, np.ndarray):
        raise TypeError(f"{where} is {type(value).__name__} but must be a NumPy array ({kind[1:]})")
    if kind != "*V" and value.dtype != np.dtype(kind[1:]):
        raise TypeError(f"{where} has dtype {value.dtype} but must be {np.dtype(kind[1:])}")
    if not value.flags.c_contiguous:
        raise TypeError(f"{where} is not contiguous: shape {value.shape}, strides {value.strides}")
    return ctypes.c_void_p(copies.address(value))


def _three(size: Sequence[int]) -> tuple[int, ...]:
    return (*size, 1, 1)[:3]
