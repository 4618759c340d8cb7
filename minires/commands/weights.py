"""`minires weights`: the tensors in a weight file, and what it says about itself."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from .. import weights
from ..train.evaluate import weights_of
from .options import add_command

__all__ = ["add", "run"]

EXAMPLES = ["runs/quick", "runs/quick/best.safetensors --json", "resnet50-FILE.pth"]


def add(commands: Any) -> None:
    """Add the command to `commands`."""
    text = "list the tensors of a weight file"
    parser = add_command(commands, "weights", run, text, EXAMPLES, needs_run=True)
    text = "safetensors or PyTorch's formats, or a run folder"
    parser.add_argument("source", metavar="FILE|RUN", help=text)
    parser.add_argument("--which", default="last", metavar="last|best", help="weights of a run")


def run(given: argparse.Namespace) -> int:
    """Read and list."""
    path = Path(given.source)
    file = weights.load_file(weights_of(path, given.which) if path.is_dir() else path)
    rows = [
        {"name": name, "dtype": dtype, "shape": list(shape), "bytes": size}
        for name, dtype, shape, size in file.tensors()
    ]
    found = weights.guess(file.arrays)
    if given.json:
        about = {"file": file.path, "format": file.format, "metadata": file.metadata}
        model = None if found is None else str(found)
        print(json.dumps({**about, "looks_like": model, "tensors": rows}))
        return 0
    wide = min(60, max((len(row["name"]) for row in rows), default=0))
    for row in rows:
        shape = "x".join(map(str, row["shape"])) or "-"
        print(f"{_plain(row['name']):{wide}}  {row['dtype']:8}  {shape:16}  {row['bytes']:>11,}")
    for name, value in file.metadata.items():
        print(_plain(f"{name}: {value}"))
    numbers = sum(array.size for array in file.arrays.values())
    total = sum(row["bytes"] for row in rows)
    looks = "" if found is None else f"; looks like {found}"
    print(f"{file.format}, {len(rows)} tensors, {numbers:,} numbers, {total:,} bytes{looks}")
    return 0


def _plain(text: str) -> str:
    """Text of a file on one line, harmless to a terminal."""
    return text if text.isprintable() else repr(text)
