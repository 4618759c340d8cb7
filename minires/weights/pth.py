"""A state dict as `torch.save` writes it, without PyTorch: a zip archive whose entries are stored.

    archive/data.pkl    the pickle of an OrderedDict; each tensor names its storage by number
    archive/byteorder   "little"
    archive/data/0 ...  the storages' raw numbers, each at a multiple of 64 bytes
    archive/version     3

`torch.load(path, weights_only=True)` reads it, also with `mmap=True`. The pickle is written opcode
by opcode (protocol 2): the `pickle` module would have to import what it names. Source:
`torch/serialization.py` and `caffe2/serialize/inline_container.h` of PyTorch.
"""

from __future__ import annotations

import os
import struct
import zipfile
from collections.abc import Mapping

import numpy as np

from ..errors import DTypeError
from .files import atomic_write, kind_of, show
from .vocabulary import STORAGES

__all__ = ["save_pth"]

ALIGNMENT = 64
FOLDER = "archive/"
LOCAL_HEADER = 30  # bytes before an entry's name
PADDING = 0x4246  # "FB", the extra field that PyTorch pads with
CLASSES = {code: name for name, code in STORAGES.items()}
LARGE = 0xFFFF_0000  # an entry from here on has longer headers, so it is left unaligned


def save_pth(path: str | os.PathLike[str], arrays: Mapping[str, np.ndarray]) -> None:
    """Write arrays, in the caller's names, layout and order, as PyTorch's state dict, whole or not
    at all.

    Equal contents give equal bytes. Raises DTypeError for a type that PyTorch's storages lack,
    DataError when the place cannot be written to.

    >>> import os, tempfile
    >>> from minires.weights import load_file
    >>> path = os.path.join(tempfile.mkdtemp(), "one.pth")
    >>> save_pth(path, {"fc.bias": np.ones(2, np.float32)})
    >>> load_file(path).arrays
    {'fc.bias': array([1., 1.], dtype=float32)}
    """
    storages: list[np.ndarray] = []
    items = []
    for key, (name, array) in enumerate(arrays.items()):
        kind = kind_of(array.dtype)
        if kind not in CLASSES:
            raise DTypeError(f"save_pth: tensor {show(name)} of {array.dtype} cannot be written")
        items += [_text(name), _tensor(str(key), CLASSES[kind], array.shape)]
        storages.append(array.astype(array.dtype.newbyteorder("<"), order="C", copy=False))
    made = _global("collections", "OrderedDict") + b")R"
    pickle = b"\x80\x02" + made + b"(" + b"".join(items) + b"u."
    with atomic_write(path) as file, zipfile.ZipFile(file, "w") as archive:
        _add(archive, "data.pkl", pickle)
        _add(archive, "byteorder", b"little")
        for key, storage in enumerate(storages):
            _add(archive, f"data/{key}", storage.reshape(-1).view(np.uint8).data)
        _add(archive, "version", b"3\n")


def _add(archive: zipfile.ZipFile, name: str, content: bytes | memoryview) -> None:
    """Store an entry so that its content begins at a multiple of `ALIGNMENT`."""
    entry = zipfile.ZipInfo(FOLDER + name)  # dated 1980: no clock in the file
    assert archive.fp is not None
    if len(content) < LARGE:
        begin = archive.fp.tell() + LOCAL_HEADER + len(entry.filename) + 4
        gap = -begin % ALIGNMENT
        entry.extra = struct.pack("<HH", PADDING, gap) + b"Z" * gap
    archive.writestr(entry, content)  # type: ignore[arg-type]


# Opcodes


def _text(value: str) -> bytes:
    raw = value.encode()
    return b"X" + struct.pack("<I", len(raw)) + raw


def _whole(value: int) -> bytes:
    if value < 2**31:
        return b"J" + struct.pack("<i", value)
    raw = value.to_bytes(value.bit_length() // 8 + 1, "little")
    return b"\x8a" + bytes([len(raw)]) + raw


def _tuple(*items: bytes) -> bytes:
    return b"(" + b"".join(items) + b"t"


def _global(module: str, name: str) -> bytes:
    return f"c{module}\n{name}\n".encode()


def _tensor(key: str, kind: str, shape: tuple[int, ...]) -> bytes:
    """A call of `_rebuild_tensor_v2(storage, offset, size, stride, requires_grad, hooks)`."""
    count, strides = 1, []
    for size in reversed(shape):
        strides.append(_whole(count))
        count *= size
    size = _tuple(*map(_whole, shape))
    place = (_text("storage"), _global("torch", kind), _text(key), _text("cpu"), _whole(count))
    storage = _tuple(*place) + b"Q"
    hooks = _global("collections", "OrderedDict") + b")R"
    arguments = _tuple(storage, _whole(0), size, _tuple(*strides[::-1]), b"\x89", hooks)
    return _global("torch._utils", "_rebuild_tensor_v2") + arguments + b"R"
