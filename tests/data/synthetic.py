"""CIFAR folders of a few made-up images, in the official layouts down to the byte."""

from __future__ import annotations

import dataclasses
import io
import struct
from pathlib import Path
from typing import Any

import numpy as np

from minires.data.cifar import Layout

__all__ = ["NAMES", "ROWS", "contents", "label", "picture", "python2_pickle", "small", "write"]

ROWS = 20  # images a file
NAMES = {"cifar10": [f"class{i}" for i in range(10)], "cifar100": [f"fine_{i}" for i in range(100)]}


def small(layout: Layout) -> Layout:
    """The same layout of small files."""
    return dataclasses.replace(layout, rows={"train": ROWS, "test": ROWS})


def picture(number: int) -> np.ndarray:
    """Image `number` (32, 32, 3): red counts rows, green columns, blue images."""
    y, x = np.mgrid[:32, :32].astype(np.uint8)
    return np.stack([y, x, np.full_like(x, number)], axis=2)


def label(number: int, name: str) -> int:
    """Its label."""
    return (7 * number + 3) % len(NAMES[name])


def contents(name: str, layout: Layout) -> dict[str, bytes]:
    """All the files of a layout, images numbered through each split."""
    files = {}
    for names in layout.splits.values():
        for i, file in enumerate(names):
            numbers = range(i * ROWS, (i + 1) * ROWS)
            planes = np.stack([picture(n).transpose(2, 0, 1).ravel() for n in numbers])
            labels = [label(n, name) for n in numbers]
            if layout.label_bytes:
                coarse = np.full((ROWS, layout.label_bytes - 1), 99, np.uint8)
                files[file] = np.column_stack([coarse, np.uint8(labels), planes]).tobytes()
            else:
                batch = {"data": planes, layout.label_key: labels, "batch_label": "synthetic"}
                files[file] = python2_pickle(batch)
    if layout.label_bytes:
        files[layout.names] = ("\n".join(NAMES[name]) + "\n\n").encode()
    else:
        files[layout.names] = python2_pickle({layout.names_key: NAMES[name]})
    return files


def write(folder: Path, name: str, layout: Layout) -> Path:
    """`contents` as files."""
    folder.mkdir(parents=True)
    for file, raw in contents(name, layout).items():
        (folder / file).write_bytes(raw)
    return folder


def python2_pickle(content: dict[str, Any]) -> bytes:
    """As Python 2 and its NumPy wrote the official files: protocol 2, str as bytes."""
    out = io.BytesIO()

    def write(value: Any) -> None:
        if isinstance(value, np.ndarray):
            out.write(
                b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R"
            )
            out.write(b"(K\x01")
            for size in value.shape:
                out.write(b"J" + struct.pack("<i", size))
            out.write(b"\x86" if value.ndim == 2 else b"\x85")
            out.write(b"cnumpy\ndtype\nU\x02" + value.dtype.str[1:].encode() + b"K\x00K\x01\x87R")
            out.write(
                b"(K\x03U\x01"
                + value.dtype.str[:1].encode()
                + b"NNN"
                + 2 * b"J\xff\xff\xff\xff"
                + b"K\x00tb"
            )
            out.write(b"\x89T" + struct.pack("<i", value.nbytes) + value.tobytes() + b"tb")
        elif isinstance(value, list):
            out.write(b"](")
            for item in value:
                write(item)
            out.write(b"e")
        elif isinstance(value, int):
            out.write(b"J" + struct.pack("<i", value))
        else:
            out.write(b"U" + bytes([len(value)]) + value.encode("latin1"))

    out.write(b"\x80\x02}(")
    for key, value in content.items():
        write(key)
        write(value)
    return out.getvalue() + b"u."
