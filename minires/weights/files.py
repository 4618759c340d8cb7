"""What the readers and the writer share: opening, number types, files that appear whole or not at
all.

Every failure is a `DataError` of one line that begins with the file's path.
"""

from __future__ import annotations

import os
import reprlib
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np

from ..errors import DataError

__all__ = [
    "NUMBERS",
    "WeightFile",
    "atomic_write",
    "decode",
    "kind_of",
    "number_type",
    "open_file",
    "read_exactly",
    "show",
]

# safetensors' names of the number types, and how their bytes lie in a file
NUMBERS = {
    "F64": "f8",
    "F32": "f4",
    "F16": "f2",
    "BF16": "u2",  # NumPy has no bfloat16: the upper half of a float32
    "I64": "i8",
    "I32": "i4",
    "I16": "i2",
    "I8": "i1",
    "U64": "u8",
    "U32": "u4",
    "U16": "u2",
    "U8": "u1",
    "BOOL": "u1",
}


CODES = {np.dtype(kind): code for code, kind in NUMBERS.items() if code not in ("BF16", "BOOL")}
CODES[np.dtype(bool)] = "BOOL"


@dataclass(frozen=True)
class WeightFile:
    """The contents of a weight file: read-only arrays in the file's names and layout (PyTorch's).

    kinds: each tensor's number type in the file, as safetensors calls it ("F32", "BF16", …); in
    `arrays` half types are float32. format: "safetensors", "zip" or "legacy" (PyTorch's, since 1.6
    and before).
    """

    path: str
    arrays: dict[str, np.ndarray]
    kinds: dict[str, str]
    metadata: dict[str, str]
    format: str

    def tensors(self) -> Iterator[tuple[str, str, tuple[int, ...], int]]:
        """(name, number type, shape, bytes in the file) of each tensor."""
        for name, array in self.arrays.items():
            kind = self.kinds[name]
            size = array.size * np.dtype(NUMBERS[kind]).itemsize
            yield name, number_type(kind), array.shape, size


def kind_of(dtype: np.dtype) -> str | None:
    """What safetensors calls a NumPy type, in either byte order; None where it has no name.

    >>> kind_of(np.dtype(">f4")), kind_of(np.dtype(complex))
    ('F32', None)
    """
    return CODES.get(dtype.newbyteorder("="))


def number_type(kind: str) -> str:
    """NumPy's name of a type that safetensors calls `kind`.

    >>> number_type("F32"), number_type("BF16"), number_type("BOOL")
    ('float32', 'bfloat16', 'bool')
    """
    return {"BF16": "bfloat16", "BOOL": "bool"}.get(kind) or np.dtype(NUMBERS[kind]).name


def show(value: object, limit: int = 80) -> str:
    """`repr` on one line, of bounded length and depth, for names and values that come from a
    file."""
    shown = reprlib.Repr()
    shown.maxlevel, shown.maxstring, shown.maxother = 2, limit, limit
    try:
        text = shown.repr(value)
    except (ValueError, RecursionError):  # an integer of thousands of digits
        text = f"a {type(value).__name__}"
    return text if len(text) <= limit else text[: limit - 3] + "..."


@contextmanager
def open_file(path: str | os.PathLike[str]) -> Iterator[tuple[BinaryIO, int]]:
    """Open a file to read: yields it and its size in bytes. Raises DataError if it cannot be."""
    try:
        with open(path, "rb") as file:
            yield file, os.fstat(file.fileno()).st_size
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror or error}") from None


def read_exactly(file: BinaryIO, start: int, count: int, path: object, what: str) -> bytes:
    """`count` bytes from `start`; the caller has compared them with the file's size."""
    file.seek(start)
    raw = file.read(count)
    if len(raw) != count:
        raise DataError(f"{path}: {what} needs {count} bytes at {start}, the file has {len(raw)}")
    return raw


def decode(raw: bytes, code: str, big_endian: bool = False) -> np.ndarray:
    """The numbers in `raw`, a flat read-only array in native order; half types become float32.

    >>> decode(bytes([0x80, 0x3F, 0x20, 0x40]), "BF16")
    array([1. , 2.5], dtype=float32)
    """
    flat = np.frombuffer(raw, np.dtype(NUMBERS[code]).newbyteorder(">" if big_endian else "<"))
    if code == "BF16":
        flat = (flat.astype(np.uint32) << 16).view(np.float32)
    elif code == "F16":
        flat = flat.astype(np.float32)
    elif code == "BOOL":
        flat = flat != 0
    else:
        flat = flat.astype(flat.dtype.newbyteorder("="), copy=False)
    flat.flags.writeable = False
    return flat


@contextmanager
def atomic_write(path: str | os.PathLike[str]) -> Iterator[BinaryIO]:
    """A file to write that takes the place of `path` when the block ends well and else vanishes.

    It is written beside `path`, flushed to the disk and renamed: a reader, a crash or a full disk
    never meets half a file. Raises DataError when the folder cannot be written to.
    """
    target = Path(os.path.realpath(path))
    beside = target.with_name(f".{target.name}.{secrets.token_hex(4)}.tmp")
    try:
        try:
            with open(beside, "xb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            os.replace(beside, target)
        finally:
            beside.unlink(missing_ok=True)
        _sync_folder(target.parent)
    except OSError as error:
        raise DataError(f"{path}: cannot be written: {error.strerror or error}") from None


def _sync_folder(folder: Path) -> None:
    """Make the rename itself survive a power cut (Windows has no such call)."""
    if os.name != "nt":
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
