"""Weight files into models and out again: what a file is shows in its first bytes, names are
matched, layouts converted."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from ..errors import DataError
from .files import open_file, show
from .layout import file_shape, flattened_maps, to_file, to_memory
from .names import guess, match_names
from .pytorch import LEGACY_MAGIC, read_legacy, read_zip
from .safetensors import read_safetensors, save_safetensors

__all__ = ["HasState", "Report", "WeightFile", "load", "load_file", "save"]

LEGACY_START = b"\x8a\x0a" + LEGACY_MAGIC.to_bytes(10, "little")  # behind the protocol
COUNTER = "num_batches_tracked"  # files from before PyTorch 0.4.1 lack it; nothing computes with it
NAMED = 3  # of each kind, in a report


class HasState(Protocol):
    """What `load` and `save` need of a model: its weights by name in memory layout."""

    def state_dict(self) -> dict[str, np.ndarray]: ...

    def load_state_dict(self, state: dict[str, np.ndarray], /) -> Any: ...


@dataclass(frozen=True)
class WeightFile:
    """The contents of a weight file: read-only arrays in the file's names and layout
    (PyTorch's)."""

    arrays: dict[str, np.ndarray]
    metadata: dict[str, str]
    format: str  # "safetensors", "zip" or "legacy"


@dataclass(frozen=True)
class Report:
    """How a file's tensors met a model's: names in the model, `unexpected` in the file; shapes as
    in files.

    >>> print(Report(["conv1.weight"], ["bn1.bias"], [], [("fc.bias", (1000,), (10,))]))
    1 matched; 1 missing: bn1.bias; 1 of another shape: fc.bias is (1000,) in the file, (10,) in the
    model
    """

    matched: list[str]
    missing: list[str]
    unexpected: list[str]
    mismatched: list[tuple[str, tuple[int, ...], tuple[int, ...]]]

    @property
    def complete(self) -> bool:
        """Whether every tensor of the file found its place in the model and none was left over."""
        return not (self.missing or self.unexpected or self.mismatched)

    def __str__(self) -> str:
        shapes = [
            f"{n} is {file} in the file, {own} in the model" for n, file, own in self.mismatched
        ]
        kinds = {"missing": self.missing, "unexpected": self.unexpected, "of another shape": shapes}
        parts = [f"{len(self.matched)} matched"]
        for kind, items in kinds.items():
            if items:
                more = ", ..." if len(items) > NAMED else ""
                some = (text if text.isprintable() else show(text) for text in items[:NAMED])
                parts.append(f"{len(items)} {kind}: {', '.join(some)}{more}")
        return "; ".join(parts)


def load_file(path: str | os.PathLike[str]) -> WeightFile:
    """Read a weight file: safetensors, a PyTorch zip archive, or PyTorch's format from before 1.6,
    told by content.

    Nothing in the file is executed. Half and bfloat16 tensors come as float32. Raises DataError, in
    one line naming the file, for anything missing, damaged, out of bounds or unknown.

    >>> load_file("no-such-file.pth")
    Traceback (most recent call last):
    minires.errors.DataError: no-such-file.pth: cannot be read: No such file or directory
    """
    with open_file(path) as (file, size):
        start = file.read(64)
    if not size:
        raise DataError(f"{path}: the file is empty")
    if start.startswith(b"PK\x03\x04"):
        return WeightFile(read_zip(path), {}, "zip")
    if start[:1] == b"\x80" and LEGACY_START in start:
        return WeightFile(read_legacy(path), {}, "legacy")
    if start[8:9] == b"{":
        arrays, metadata = read_safetensors(path)
        return WeightFile(arrays, metadata, "safetensors")
    hint = ""
    if start.startswith(b"version https://git-lfs"):
        hint = " (a Git LFS pointer: fetch the file itself)"
    elif start.lstrip()[:1] == b"<":
        hint = " (a web page: the download went wrong)"
    elif start[:1] == b"\x80":
        hint = " (a pickle that torch.save did not write)"
    raise DataError(
        f"{path}: neither safetensors nor a PyTorch file{hint}: it begins with {show(start[:12])}"
    )


def load(model: HasState, path: str | os.PathLike[str], *, strict: bool = True) -> Report:
    """Read the weights in `path` into `model`, whatever wrapped them or named their shortcuts, and
    report what fitted.

    Numbers take the model's types. With `strict` anything missing, unexpected or of another shape
    raises DataError, and the model stays as it was; without it what fits is loaded. A missing
    `num_batches_tracked` does not count. Raises DataError as `load_file` does, and for a linear
    layer behind a flattened map that the model does not declare (see `layout`).
    """
    file = load_file(path)
    own = model.state_dict()
    maps = flattened_maps(model)
    names = match_names(file.arrays, own)
    matched: list[str] = []
    mismatched: list[tuple[str, tuple[int, ...], tuple[int, ...]]] = []
    state = dict(own)
    for theirs, name in names.items():
        array, wanted = file.arrays[theirs], file_shape(own[name].shape)
        if array.shape != wanted:
            mismatched.append((name, array.shape, wanted))
            continue
        if own[name].dtype.kind == "f" and array.dtype.kind != "f":
            raise DataError(f"{path}: {theirs} is {array.dtype}, expected {own[name].dtype}")
        matched.append(name)
        with np.errstate(over="ignore"):
            array = array.astype(own[name].dtype, copy=False)
        state[name] = to_memory(name, array, flattened_from=maps.get(name))
    met = set(names.values())
    report = Report(
        matched=matched,
        missing=[name for name in own if name not in met and not name.endswith(COUNTER)],
        unexpected=[n for n in file.arrays if n not in names and not n.endswith(COUNTER)],
        mismatched=mismatched,
    )
    if strict and not report.complete:
        found = file.metadata.get("model") or guess(file.arrays)
        looks = f" (they look like {show(found)[1:-1]})" if found else ""
        raise DataError(f"{path}: weights of another model{looks}: {report}")
    model.load_state_dict(state)
    return report


def save(
    model: HasState, path: str | os.PathLike[str], metadata: Mapping[str, str] | None = None
) -> None:
    """Write the model's weights as safetensors in PyTorch's names and layouts, whole or not at all.

    metadata: text by name, kept in the file's header. Raises DataError when the place cannot be
    written to, and for a linear layer behind a flattened map that the model does not declare.
    """
    maps = flattened_maps(model)
    arrays = {
        name: to_file(name, array, flattened_from=maps.get(name))
        for name, array in model.state_dict().items()
    }
    save_safetensors(path, arrays, metadata)
