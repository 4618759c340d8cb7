"""Weight files made by hand, byte for byte: no test needs PyTorch, and any damage can be done."""

from __future__ import annotations

import io
import json
import struct
import zipfile
from dataclasses import dataclass
from typing import Any

import numpy as np

__all__ = [
    "Call",
    "Global",
    "View",
    "encoded",
    "legacy_bytes",
    "pickled",
    "safetensors_bytes",
    "tensors",
    "zip_bytes",
]

MAGIC = 0x1950A86A20F9469CFC6C
STORAGE = {
    "float64": "DoubleStorage",
    "float32": "FloatStorage",
    "float16": "HalfStorage",
    "uint16": "BFloat16Storage",  # NumPy has no bfloat16
    "int64": "LongStorage",
    "int32": "IntStorage",
    "int16": "ShortStorage",
    "int8": "CharStorage",
    "uint8": "ByteStorage",
    "bool": "BoolStorage",
}


@dataclass
class Global:
    """The name of something that a pickle wants to import."""

    name: str


@dataclass
class Call:
    """A call that a pickle asks for."""

    function: str
    arguments: tuple


@dataclass
class View:
    """A tensor on a storage."""

    key: str
    kind: str  # of STORAGE
    count: int
    shape: tuple[int, ...]
    stride: tuple[int, ...]
    offset: int = 0
    view: tuple | None = None

    def as_call(self, legacy: bool) -> Call:
        identity = ("storage", Global(f"torch.{self.kind}"), self.key, "cpu", self.count)
        identity += (self.view,) if legacy else ()
        arguments = (Persistent(identity), self.offset, self.shape, self.stride, False)
        hooks = Call("collections.OrderedDict", ())
        return Call("torch._utils._rebuild_tensor_v2", (*arguments, hooks))


@dataclass
class Persistent:
    """A persistent id."""

    identity: tuple


def encoded(value: Any, legacy: bool = False) -> bytes:
    """Pickle opcodes of protocol 2 that make `value`."""
    match value:
        case None | True | False:
            return {None: b"N", True: b"\x88", False: b"\x89"}[value]
        case int():
            raw = value.to_bytes(value.bit_length() // 8 + 1, "little", signed=True)
            return b"\x8a" + bytes([len(raw)]) + raw
        case float():
            return b"G" + struct.pack(">d", value)
        case str():
            raw = value.encode()
            return b"X" + struct.pack("<I", len(raw)) + raw
        case tuple():
            return b"(" + b"".join(encoded(item, legacy) for item in value) + b"t"
        case list():
            return b"](" + b"".join(encoded(item, legacy) for item in value) + b"e"
        case dict():
            items = (encoded(k, legacy) + encoded(v, legacy) for k, v in value.items())
            return b"}(" + b"".join(items) + b"u"
        case Global(name):
            module, _, name = name.rpartition(".")
            return f"c{module}\n{name}\n".encode()
        case Call(function, arguments):
            return encoded(Global(function)) + encoded(arguments, legacy) + b"R"
        case Persistent(identity):
            return encoded(identity, legacy) + b"Q"
        case View():
            return encoded(value.as_call(legacy), legacy)
    raise TypeError(type(value))


def pickled(value: Any, legacy: bool = False) -> bytes:
    return b"\x80\x02" + encoded(value, legacy) + b"."


def tensors(arrays: dict[str, np.ndarray]) -> tuple[dict[str, View], dict[str, np.ndarray]]:
    """(views, storages) of C-contiguous arrays, a storage each."""
    views, storages = {}, {}
    for index, (name, array) in enumerate(arrays.items()):
        key, kind = str(index), STORAGE[str(array.dtype)]
        stride = tuple(step // array.itemsize for step in np.ascontiguousarray(array).strides)
        views[name] = View(key, kind, array.size, array.shape, stride[: array.ndim])
        storages[key] = np.ascontiguousarray(array).reshape(-1)
    return views, storages


def zip_bytes(
    tree: Any,
    storages: dict[str, np.ndarray],
    folder: str = "archive/",
    *,
    compression: int = zipfile.ZIP_STORED,
    more: dict[str, bytes] | None = None,
) -> bytes:
    """A PyTorch zip archive; `tree` may be the pickle's bytes."""
    raw = tree if isinstance(tree, bytes) else pickled(tree)
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as archive:
        archive.writestr(f"{folder}data.pkl", raw)
        for key, array in storages.items():
            archive.writestr(f"{folder}data/{key}", array.tobytes())
        for name, content in (more or {}).items():
            archive.writestr(folder + name, content)
    return buffer.getvalue()


def legacy_bytes(
    tree: Any, storages: dict[str, np.ndarray], keys: Any = None, *, big_endian: bool = False
) -> bytes:
    """PyTorch's format from before 1.6; `tree` may be the pickle's bytes."""
    raw = tree if isinstance(tree, bytes) else pickled(tree, legacy=True)
    machine = {"protocol_version": 1001, "little_endian": not big_endian}
    head = pickled(MAGIC) + pickled(1001) + pickled(machine) + raw
    head += pickled(list(storages) if keys is None else keys)
    order = ">q" if big_endian else "<q"
    body = (struct.pack(order, a.size) + a.tobytes() for a in storages.values())
    return head + b"".join(body)


def safetensors_bytes(header: Any, numbers: bytes = b"", length: int | None = None) -> bytes:
    """A safetensors file; `header` may be bytes, `length` may lie."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + numbers
