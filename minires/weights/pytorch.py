"""Weights out of the two formats of `torch.save`, without PyTorch and without running a pickle.

Since 1.6 a zip archive, all entries uncompressed:

    NAME/data.pkl    the saved object; each tensor names its storage by number
    NAME/data/0 ...  the storages' raw numbers
    NAME/byteorder   "little" or "big" (newer versions)

Before, one stream: pickles of a magic number, the protocol (1001), the machine, the object and the
list of storage keys; then for each key an int64 count and the raw numbers. Source:
`torch/serialization.py`.
"""

from __future__ import annotations

import io
import os
import struct
import zipfile
import zlib
from collections.abc import Callable
from typing import Any, BinaryIO

import numpy as np

from ..errors import DataError
from .files import NUMBERS, WeightFile, decode, open_file, read_exactly, show
from .pickles import PICKLE_LIMIT, read_pickle
from .vocabulary import Storage, TensorRef

__all__ = ["LEGACY_MAGIC", "read_legacy", "read_zip"]

LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
LEGACY_PROTOCOL = 1001
RANK_LIMIT = 32
ZIP_FAULTS = (zipfile.BadZipFile, RuntimeError, EOFError, KeyError, ValueError, OverflowError)
ZIP_FAULTS += (struct.error, zlib.error)


def read_zip(path: str | os.PathLike[str]) -> WeightFile:
    """The tensors of a PyTorch zip archive as read-only arrays in the file's names and layout.

    Half types come as float32. Taken is the dictionary that holds the most tensors, wherever it
    lies in the saved object. Tensors that share a storage share memory. Raises DataError for
    damage, compressed entries, entries larger than the file together, and pickles that name
    anything but tensors and plain values. Memory stays proportional to the file's size.
    """
    with open_file(path) as (file, size):
        try:
            with zipfile.ZipFile(file) as archive:
                return _from_archive(archive, size, path)
        except DataError:
            raise
        except ZIP_FAULTS as error:
            raise DataError(f"{path}: damaged zip archive: {show(str(error), 120)}") from None


def _from_archive(archive: zipfile.ZipFile, size: int, path: str | os.PathLike[str]) -> WeightFile:
    entries = {info.filename: info for info in archive.infolist()}
    pickles = [name for name in entries if name == "data.pkl" or name.endswith("/data.pkl")]
    if len(pickles) != 1:
        raise DataError(
            f"{path}: a zip archive with {len(pickles)} data.pkl, expected 1: not PyTorch's"
        )
    folder = pickles[0].removesuffix("data.pkl")
    used = (pickles[0], f"{folder}data/", f"{folder}byteorder")
    needed = [info for info in archive.infolist() if info.filename.startswith(used)]
    for info in needed:
        if info.compress_type != zipfile.ZIP_STORED or info.file_size != info.compress_size:
            name = show(info.filename)
            raise DataError(f"{path}: entry {name} is compressed, which PyTorch's never are")
    claimed = sum(info.file_size for info in needed)
    if claimed > size:  # entries that overlap
        raise DataError(f"{path}: entries of {claimed} bytes in a file of {size}: a zip bomb?")

    def read(name: str, expected: int | None = None) -> bytes:
        if name not in entries:
            raise DataError(f"{path}: the archive lacks {show(name)}")
        found = entries[name].file_size
        if expected is not None and found != expected:
            raise DataError(f"{path}: {show(name)} has {found} bytes, expected {expected}")
        return archive.read(entries[name])

    order = read(folder + "byteorder") if folder + "byteorder" in entries else b"little"
    if order not in (b"little", b"big"):
        raise DataError(f"{path}: byteorder is {show(order)}, expected little or big")
    if entries[pickles[0]].file_size > PICKLE_LIMIT:
        raise DataError(f"{path}: data.pkl is over the limit of {PICKLE_LIMIT} bytes")
    raw = read(pickles[0])
    tree, _ = read_pickle(io.BytesIO(raw), len(raw), path)

    def numbers(storage: Storage) -> np.ndarray:
        expected = storage.count * np.dtype(NUMBERS[storage.code]).itemsize
        return decode(read(f"{folder}data/{storage.key}", expected), storage.code, order == b"big")

    return _contents(tree, numbers, path, "zip")


def read_legacy(path: str | os.PathLike[str]) -> WeightFile:
    """The tensors of PyTorch's format from before 1.6, on the terms of `read_zip`."""
    with open_file(path) as (file, size):

        def unpickled() -> tuple[Any, dict[str, Storage]]:
            return read_pickle(file, size - file.tell(), path)

        magic, protocol, machine = unpickled()[0], unpickled()[0], unpickled()[0]
        if magic != LEGACY_MAGIC or protocol != LEGACY_PROTOCOL or not isinstance(machine, dict):
            raise DataError(f"{path}: not in PyTorch's format from before 1.6: wrong magic number")
        big_endian = machine.get("little_endian") is False
        tree, storages = unpickled()
        keys, _ = unpickled()
        if not isinstance(keys, list):
            raise DataError(f"{path}: the list of storages is a {type(keys).__name__}")
        places = _places(file, size, keys, storages, big_endian, path)

        def numbers(storage: Storage) -> np.ndarray:
            if storage.key not in places:
                raise DataError(f"{path}: storage {show(storage.key)} is not in the file")
            start, length = places[storage.key]
            raw = read_exactly(file, start, length, path, f"storage {show(storage.key)}")
            return decode(raw, storage.code, big_endian)

        return _contents(tree, numbers, path, "legacy")


def _places(
    file: BinaryIO,
    size: int,
    keys: list[Any],
    storages: dict[str, Storage],
    big_endian: bool,
    path: object,
) -> dict[str, tuple[int, int]]:
    """Where each storage's numbers lie: `{key: (start, length in bytes)}`."""
    places: dict[str, tuple[int, int]] = {}
    position = file.tell()
    for key in keys:
        if not isinstance(key, str) or key not in storages or key in places:
            raise DataError(
                f"{path}: storage {show(key)} is listed but no tensor uses it, or twice"
            )
        what = f"the size of storage {show(key)}"
        (count,) = struct.unpack(
            ">q" if big_endian else "<q", read_exactly(file, position, 8, path, what)
        )
        expected = storages[key].count
        if count != expected:
            raise DataError(f"{path}: storage {show(key)} has {count} numbers, expected {expected}")
        length = count * np.dtype(NUMBERS[storages[key].code]).itemsize
        if position + 8 + length > size:
            raise DataError(
                f"{path}: storage {show(key)} ends at byte {position + 8 + length}"
                f" but the file has {size}: truncated?"
            )
        places[key] = position + 8, length
        position += 8 + length
    return places


def _contents(
    tree: Any, numbers: Callable[[Storage], np.ndarray], path: str | os.PathLike[str], form: str
) -> WeightFile:
    """The tensors of the fullest dictionary in `tree`, each storage read once."""
    flat: dict[str, np.ndarray] = {}
    arrays, kinds = {}, {}
    for name, ref in _fullest(tree, path).items():
        key = ref.storage.key
        if key not in flat:
            flat[key] = numbers(ref.storage)
        arrays[name] = _view(flat[key], ref, f"{path}: tensor {show(name)}")
        kinds[name] = ref.storage.code
    return WeightFile(os.fspath(path), arrays, kinds, {}, form)


def _fullest(tree: Any, path: object) -> dict[str, TensorRef]:
    """The dictionary with the most tensors; of equals, the first met breadth-first."""
    best: dict[str, TensorRef] = {}
    queue, seen = [tree], {id(tree)}
    for node in queue:  # grows as it goes
        if isinstance(node, dict):
            tensors = {k: v for k, v in node.items() if isinstance(v, TensorRef)}
            named = {k: v for k, v in tensors.items() if isinstance(k, str)}
            best = named if len(named) > len(best) else best
        children = node.values() if isinstance(node, dict) else node
        for child in children if isinstance(node, (dict, list, tuple)) else ():
            if isinstance(child, (dict, list, tuple)) and id(child) not in seen:
                seen.add(id(child))
                queue.append(child)
    if not best:
        raise DataError(f"{path}: holds no dictionary of named tensors")
    return best


def _view(flat: np.ndarray, ref: TensorRef, where: str) -> np.ndarray:
    """The tensor as a view of its storage: no copy, so a small file cannot ask for much memory."""
    sizes, steps, start = ref.shape, ref.stride, ref.offset
    for values in (sizes, steps, (start,)):
        if not isinstance(values, (tuple, list)) or len(values) > RANK_LIMIT:
            raise DataError(f"{where}: shape {show(sizes)}, strides {show(steps)} are not lists")
        if not all(type(v) is int and 0 <= v < 2**40 for v in values):
            raise DataError(
                f"{where}: shape {show(sizes)}, strides {show(steps)}, offset {show(start)}"
            )
    count = 1
    for size in sizes:
        count *= size
    last = sum((size - 1) * step for size, step in zip(sizes, steps, strict=False))
    begin = ref.storage.start + start
    if len(sizes) != len(steps) or count > flat.size or (count and begin + last >= flat.size):
        raise DataError(
            f"{where} of shape {show(tuple(sizes))}, strides {show(tuple(steps))} from {begin}"
            f" does not fit its storage of {flat.size}"
        )
    if not count:
        try:
            nothing = np.empty(tuple(sizes), flat.dtype)
        except ValueError:
            raise DataError(f"{where}: shape {show(tuple(sizes))} is too big") from None
        nothing.flags.writeable = False
        return nothing
    strides = [step * flat.itemsize for step in steps]
    return np.ndarray(tuple(sizes), flat.dtype, flat, begin * flat.itemsize, strides)
