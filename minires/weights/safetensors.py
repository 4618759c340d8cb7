"""The safetensors format: 8 bytes of header length (little-endian), a JSON header, the raw numbers.

    {"__metadata__": {"epoch": "3"},
     "fc.bias": {"dtype": "F32", "shape": [10], "data_offsets": [0, 40]}}

https://github.com/huggingface/safetensors. Written here instead of taken from the `safetensors`
package: its NumPy flavour cannot read bfloat16, shuffles the metadata (equal runs would give
unequal files), maps the file (a truncation while reading kills the process) and leaves the values
out of its messages. The tests compare with it where it is installed.
"""

from __future__ import annotations

import json
import math
import os
import struct
from collections.abc import Mapping
from typing import Any, BinaryIO

import numpy as np

from ..errors import DataError, DTypeError
from .files import (
    NUMBERS,
    WeightFile,
    atomic_write,
    decode,
    kind_of,
    open_file,
    read_exactly,
    show,
)

__all__ = ["HEADER_LIMIT", "read_safetensors", "save_safetensors"]

HEADER_LIMIT = 100_000_000  # bytes, the format's own limit
RANK_LIMIT = 32


def read_safetensors(path: str | os.PathLike[str]) -> WeightFile:
    """Read a safetensors file, the arrays as named and laid out in it.

    They are read-only. Half types come as float32. Raises DataError, in one line naming the file
    and the tensor, for a header longer than the file or 100 MB, bad JSON, unknown types, and
    offsets that are out of range, overlap, leave holes or do not fit the shape. Memory stays within
    twice the file's numbers (half types are widened) and the parsed header.
    """
    with open_file(path) as (file, size):
        start, header = _header(file, size, path)
        metadata = _metadata(header.pop("__metadata__", {}), path)
        spans = [(*_entry(name, entry, path), name) for name, entry in header.items()]
        position = 0
        for begin, end, _, _, name in sorted(spans, key=lambda span: (span[0], span[1])):
            if begin != position:
                fault = "leaves a hole before it" if begin > position else "overlaps its neighbour"
                where = f"{path}: tensor {show(name)}"
                raise DataError(f"{where} {fault}: it begins at byte {begin}, expected {position}")
            if end > size - start:
                raise DataError(
                    f"{path}: tensor {show(name)} ends at byte {end} of {size - start}: truncated?"
                )
            position = end
        if position != size - start:
            raise DataError(
                f"{path}: {size - start} bytes of numbers, but the tensors fill {position}"
            )
        arrays, kinds = {}, {}
        for begin, end, code, shape, name in spans:
            raw = read_exactly(file, start + begin, end - begin, path, f"tensor {show(name)}")
            arrays[name] = decode(raw, code).reshape(shape)
            kinds[name] = code
        return WeightFile(os.fspath(path), arrays, kinds, metadata, "safetensors")


def _header(file: BinaryIO, size: int, path: object) -> tuple[int, dict[str, Any]]:
    """Where the numbers begin, and the parsed header."""
    if size < 8:
        raise DataError(f"{path}: {size} bytes are too few for a safetensors file: truncated?")
    (length,) = struct.unpack("<Q", read_exactly(file, 0, 8, path, "the header length"))
    if length > HEADER_LIMIT:
        raise DataError(f"{path}: a header of {length} bytes is over the limit of {HEADER_LIMIT}")
    if length > size - 8:
        raise DataError(f"{path}: a header of {length} bytes in a file of {size}: truncated?")
    raw = read_exactly(file, 8, length, path, "the header")
    try:
        header = json.loads(raw.decode("utf-8"), object_pairs_hook=_without_repeats)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path}: the header is not valid JSON: {show(str(error), 120)}") from None
    if not isinstance(header, dict):
        raise DataError(f"{path}: the header is a JSON {type(header).__name__}, expected an object")
    return 8 + length, header


def _without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result: dict[str, Any] = {}
    for name, value in pairs:
        if name in result:
            raise ValueError(f"the name {show(name)} appears twice")
        result[name] = value
    return result


def _metadata(metadata: Any, path: object) -> dict[str, str]:
    if not isinstance(metadata, dict) or not all(isinstance(v, str) for v in metadata.values()):
        raise DataError(f"{path}: __metadata__ must map names to text, got {show(metadata)}")
    return metadata


def _entry(name: str, entry: Any, path: object) -> tuple[int, int, str, tuple[int, ...]]:
    """One tensor's `(begin, end, dtype code, shape)`, checked as far as it can be alone."""
    where = f"{path}: tensor {show(name)}"
    if not isinstance(entry, dict) or set(entry) != {"dtype", "shape", "data_offsets"}:
        raise DataError(f"{where}: expected dtype, shape and data_offsets, got {show(entry)}")
    code, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(code, str) or code not in NUMBERS:
        raise DataError(f"{where} is of type {show(code)}, expected one of {', '.join(NUMBERS)}")
    if not _naturals(shape) or len(shape) > RANK_LIMIT:
        raise DataError(f"{where}: shape {show(shape)} is not a list of whole numbers from 0")
    if not _naturals(offsets) or len(offsets) != 2 or offsets[0] > offsets[1]:
        raise DataError(f"{where}: data_offsets {show(offsets)} are not [begin, end]")
    needed = math.prod(shape) * np.dtype(NUMBERS[code]).itemsize
    if needed != offsets[1] - offsets[0]:
        raise DataError(
            f"{where}: {code} {show(tuple(shape))} takes {show(needed)} bytes,"
            f" data_offsets {offsets} span {offsets[1] - offsets[0]}"
        )
    if 0 in shape and math.prod(d or 1 for d in shape) >= 2**60:  # NumPy refuses such an array
        raise DataError(f"{where}: shape {show(tuple(shape))} is too big")
    return offsets[0], offsets[1], code, tuple(shape)


def _naturals(values: Any) -> bool:
    return isinstance(values, list) and all(type(v) is int and 0 <= v < 2**63 for v in values)


def save_safetensors(
    path: str | os.PathLike[str],
    arrays: Mapping[str, np.ndarray],
    metadata: Mapping[str, str] | None = None,
) -> None:
    """Write arrays, in the caller's names and layout, to a safetensors file, whole or not at all.

    Equal contents give equal bytes: tensors lie by falling item size, then by name (so that each is
    aligned), the metadata by name. Raises DTypeError for a type or metadata that the format lacks,
    DataError when the place cannot be written to.

    >>> import os, tempfile
    >>> path = os.path.join(tempfile.mkdtemp(), "two.safetensors")
    >>> save_safetensors(path, {"a": np.ones((2, 2), np.float32)}, {"epoch": "3"})
    >>> read_safetensors(path).metadata
    {'epoch': '3'}
    """
    header: dict[str, Any] = {}
    for key, value in sorted((metadata or {}).items()):
        if not isinstance(key, str) or not isinstance(value, str):
            raise DTypeError(f"save_safetensors: metadata must be text: {show(key)}: {show(value)}")
        header.setdefault("__metadata__", {})[key] = value
    little: list[np.ndarray] = []
    position = 0
    for name in sorted(arrays, key=lambda name: (-arrays[name].dtype.itemsize, name)):
        array = arrays[name]
        kind = kind_of(array.dtype)
        if kind is None or name == "__metadata__":
            raise DTypeError(
                f"save_safetensors: tensor {show(name)} of {array.dtype} cannot be written"
            )
        little.append(array.astype(array.dtype.newbyteorder("<"), order="C", copy=False))
        header[name] = {
            "dtype": kind,
            "shape": list(array.shape),
            "data_offsets": [position, position + array.nbytes],
        }
        position += array.nbytes
    text = json.dumps(header, separators=(",", ":")).encode("ascii")
    text += b" " * (-len(text) % 8)
    if len(text) > HEADER_LIMIT:
        raise DataError(
            f"{path}: a header of {len(text)} bytes is over the limit of {HEADER_LIMIT}"
        )
    with atomic_write(path) as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for array in little:
            file.write(array.reshape(-1).view(np.uint8).data)
