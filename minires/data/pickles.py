"""Reading the pickles of CIFAR's Python archives without running anything that they ask for.

A pickle is a program that may call any function. This reader lets it name four, and gives it
stand-ins for these: a pickle can build lists, dicts, strings, numbers and, out of raw bytes, arrays
of bytes or integers. NumPy itself is never called by it.
"""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import DataError

__all__ = ["REMEDY", "read_pickle"]

REMEDY = "delete it and get it again with --download"
DTYPES = {"u1": np.uint8, "i4": np.int32, "i8": np.int64}


class _DType:
    """Stands in for numpy.dtype: keeps the name, checks that it is a plain one, little-endian."""

    def __init__(self, name: str, *_: Any) -> None:
        if name not in DTYPES:
            raise pickle.UnpicklingError(f"an array of {name!r}, expected {', '.join(DTYPES)}")
        self.dtype = np.dtype(DTYPES[name])

    def __setstate__(self, state: Any) -> None:
        if state[1] not in ("<", "|"):
            raise pickle.UnpicklingError(
                f"an array of byte order {state[1]!r}, expected '<' or '|'"
            )


class _Array:
    """Stands in for numpy.ndarray: becomes the array `value` when its state arrives."""

    value: np.ndarray | None = None

    def __setstate__(self, state: Any) -> None:
        _, shape, kind, fortran, raw = state
        raw = raw.encode("latin1") if isinstance(raw, str) else raw  # Python 2 wrote bytes as str
        flat = np.frombuffer(raw, kind.dtype)
        self.value = flat.reshape(shape, order="F" if fortran else "C")


def _reconstruct(*_: Any) -> _Array:
    """Stands in for numpy's function of that name, which makes the empty array."""
    return _Array()


def _encode(text: str, _codec: str) -> bytes:
    """Stands in for _codecs.encode, which Python 3 writes around bytes under protocol 2."""
    return text.encode("latin1")


STAND_INS: dict[tuple[str, str], Any] = {
    ("numpy.core.multiarray", "_reconstruct"): _reconstruct,
    ("numpy._core.multiarray", "_reconstruct"): _reconstruct,
    ("numpy", "ndarray"): _Array,
    ("numpy", "dtype"): _DType,
    ("_codecs", "encode"): _encode,
}


class _Reader(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        try:
            return STAND_INS[module, name]
        except KeyError:
            raise pickle.UnpicklingError(
                f"it asks for {module}.{name}, expected only arrays and plain containers"
            ) from None


def read_pickle(path: Path) -> dict[str, Any]:
    """The dict in a pickle file: its keys as str, its arrays as ndarrays (uint8, int32, int64).

    Raises DataError, naming the file, for one that is damaged, not a dict, or asks for anything
    else.
    """
    try:
        with path.open("rb") as file:
            content = _Reader(file, encoding="latin1").load()
    except Exception as error:  # a damaged pickle fails in any way
        reason = " ".join(str(error).split()) or type(error).__name__
        raise DataError(f"{path}: not a readable CIFAR pickle: {reason}; {REMEDY}") from None
    if not isinstance(content, dict):
        raise DataError(f"{path}: holds a {type(content).__name__} but must hold a dict; {REMEDY}")
    return {_text(key): _plain(value) for key, value in content.items()}


def _text(key: Any) -> str:
    return key.decode("latin1") if isinstance(key, bytes) else str(key)


def _plain(value: Any) -> Any:
    return value.value if isinstance(value, _Array) else value
