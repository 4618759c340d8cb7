"""Checkpoints: everything that a run needs to go on bit for bit, in files that survive a crash.

A checkpoint is one safetensors file: the arrays of a nested state under running numbers, the rest
as JSON in its metadata beside a SHA-256 of both. It is written to the side, synced and renamed, and
the one before is kept; a damaged newest one falls back to that. No pickle anywhere.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import DataError
from ..tensor import Tensor
from ..weights import load_file, save_safetensors

__all__ = ["NEWEST", "PREVIOUS", "has_checkpoint", "load_checkpoint", "save_checkpoint"]

NEWEST = "checkpoint.safetensors"
PREVIOUS = "checkpoint.previous.safetensors"
DAMAGED = NEWEST + ".damaged"  # put aside by a resumed run
VERSION = "1"


def save_checkpoint(folder: Path, state: dict[str, Any]) -> None:
    """Write `state` (nested dicts, lists, plain values and NumPy arrays) as the newest checkpoint
    of `folder`.

    Raises DataError or OSError (a full disk, lost permission); the older files are intact then.
    """
    arrays: dict[str, np.ndarray] = {}
    text = json.dumps(_take_arrays(state, arrays))
    metadata = {"format": f"minires checkpoint {VERSION}", "state": text}
    beside = folder / (NEWEST + ".new")
    save_safetensors(beside, arrays, {**metadata, "sha256": _digest(text, arrays)})
    if (folder / NEWEST).exists():
        os.replace(folder / NEWEST, folder / PREVIOUS)
    os.replace(beside, folder / NEWEST)
    sync_folder(folder)


def sync_folder(folder: Path) -> None:
    """Have the names of its files on the disk, where folders can be synced (not on Windows)."""
    if os.name == "posix":
        number = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(number)
        finally:
            os.close(number)


def load_checkpoint(folder: Path, say: Callable[[str], None] = print) -> dict[str, Any]:
    """The newest state of `folder` that is whole. Tells `say` when it had to fall back.

    Raises DataError when there is none.
    """
    damage = []
    for name in (NEWEST, PREVIOUS):
        path = folder / name
        if not path.exists():
            continue
        try:
            state = _read(path)
        except DataError as error:
            damage.append(str(error))
            continue
        if damage:
            say(f"{damage[0]}; going on from the checkpoint before it, {PREVIOUS}")
            os.replace(folder / NEWEST, folder / DAMAGED)  # must not push out the good one
        return state
    if damage:
        raise DataError("; ".join(damage))
    raise DataError(f"{folder}: no {NEWEST} here, so there is nothing to resume")


def has_checkpoint(folder: Path) -> bool:
    """Whether a run has come as far as its first checkpoint, whole or damaged."""
    return any((folder / name).exists() for name in (NEWEST, PREVIOUS, DAMAGED))


def _read(path: Path) -> dict[str, Any]:
    try:
        file = load_file(path)
    except (ValueError, OSError) as error:
        raise DataError(f"{path}: damaged checkpoint: {error}") from None
    text = file.metadata.get("state", "")
    if file.metadata.get("format") != f"minires checkpoint {VERSION}":
        raise DataError(f"{path}: not a checkpoint of this version of minires")
    if file.metadata.get("sha256") != _digest(text, file.arrays):
        raise DataError(f"{path}: damaged checkpoint: its checksum does not match")
    return _put_arrays(json.loads(text), file.arrays)


def _digest(text: str, arrays: dict[str, np.ndarray]) -> str:
    digest = hashlib.sha256(text.encode())
    for name in sorted(arrays):
        array = np.ascontiguousarray(arrays[name])
        digest.update(f"{name} {array.dtype.str} {array.shape}".encode())
        digest.update(array.reshape(-1).view(np.uint8).data)
    return digest.hexdigest()


def _take_arrays(tree: Any, arrays: dict[str, np.ndarray]) -> Any:
    """The tree with every array moved to `arrays` and {"array": its name} in its place."""
    if isinstance(tree, dict):
        return {key: _take_arrays(value, arrays) for key, value in tree.items()}
    if isinstance(tree, (list, tuple)):
        return [_take_arrays(value, arrays) for value in tree]
    if isinstance(tree, np.generic):
        return tree.item()
    if hasattr(tree, "get") and hasattr(tree, "dtype"):  # a CuPy array
        tree = Tensor(tree).numpy()
    if isinstance(tree, np.ndarray):
        name = f"{len(arrays):05d}"
        arrays[name] = tree
        return {"array": name}
    return tree


def _put_arrays(tree: Any, arrays: dict[str, np.ndarray]) -> Any:
    if isinstance(tree, dict):
        if tree.keys() == {"array"}:
            return arrays[tree["array"]]
        return {key: _put_arrays(value, arrays) for key, value in tree.items()}
    if isinstance(tree, list):
        return [_put_arrays(value, arrays) for value in tree]
    return tree
