"""Weight files into models and out again: what a file is shows in its first bytes, names are
matched, layouts converted."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from ..errors import DataError
from ..tensor import Tensor
from .files import WeightFile, number_type, open_file, show
from .layout import file_shape, flattened_maps, to_file, to_memory
from .names import AVERAGED, guess, match_names
from .pth import save_pth
from .pytorch import LEGACY_MAGIC, read_legacy, read_zip
from .safetensors import read_safetensors, save_safetensors

__all__ = ["HasState", "Report", "file_arrays", "load", "load_file", "save"]

FORMATS = ("safetensors", "pth")

LEGACY_START = b"\x8a\x0a" + LEGACY_MAGIC.to_bytes(10, "little")  # behind the protocol
COUNTER = "num_batches_tracked"  # files from before PyTorch 0.4.1 lack it; nothing computes with it
NAMED = 3  # of each kind, in a report


class HasState(Protocol):
    """What `load` and `save` need of a model: its weights by name in memory layout."""

    def state_dict(self) -> dict[str, np.ndarray]: ...

    def load_state_dict(self, state: dict[str, np.ndarray], /) -> Any: ...


@dataclass(frozen=True)
class Report:
    """How a file's tensors met a model's: names in the model, `unexpected` in the file; shapes as
    in files.

    reset: those of the classifier, left as the model had them. converted: how many tensors came
    from which other number type.

    >>> print(Report(["conv1.weight"], ["bn1.bias"], [], [("fc.bias", (1000,), (10,))]))
    1 matched; 1 missing: bn1.bias; 1 of another shape: fc.bias is (1000,) in the file, (10,) in the
    model
    """

    matched: list[str]
    missing: list[str]
    unexpected: list[str]
    mismatched: list[tuple[str, tuple[int, ...], tuple[int, ...]]]
    reset: list[str] = field(default_factory=list)
    converted: dict[str, int] = field(default_factory=dict)

    @property
    def complete(self) -> bool:
        """Whether every tensor of the file found its place in the model and none was left over."""
        return not (self.missing or self.unexpected or self.mismatched)

    def __str__(self) -> str:
        shapes = [
            f"{n} is {file} in the file, {own} in the model" for n, file, own in self.mismatched
        ]
        kinds = {"missing": self.missing, "unexpected": self.unexpected, "of another shape": shapes}
        kinds["reset"] = self.reset
        parts = [f"{len(self.matched)} matched"]
        for kind, items in kinds.items():
            if items:
                more = ", ..." if len(items) > NAMED else ""
                some = (text if text.isprintable() else show(text) for text in items[:NAMED])
                parts.append(f"{len(items)} {kind}: {', '.join(some)}{more}")
        parts += [f"{count} converted from {kind}" for kind, count in self.converted.items()]
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
        start = file.read(512)
    if not size:
        raise DataError(f"{path}: the file is empty")
    if start.startswith(b"PK\x03\x04"):
        return read_zip(path)
    if start[:1] == b"\x80" and LEGACY_START in start[:64]:
        return read_legacy(path)
    if start[8:9] == b"{":
        return read_safetensors(path)
    hint = ""
    if start.startswith(b"version https://git-lfs"):
        hint = " (a Git LFS pointer: fetch the file itself)"
    elif start.lstrip()[:1] == b"<":
        hint = " (a web page: the download went wrong)"
    elif start[257:262] == b"ustar":
        hint = " (a tar archive, as PyTorch before 0.2 made: load and save it with a newer one)"
    elif start[:1] == b"\x80":
        hint = " (a pickle that torch.save did not write)"
    raise DataError(
        f"{path}: neither safetensors nor a PyTorch file{hint}: it begins with {show(start[:12])}"
    )


def load(
    model: HasState,
    source: str | os.PathLike[str] | WeightFile,
    *,
    strict: bool = True,
    reset_head: bool = False,
) -> Report:
    """Read the weights in `source`, a path or what `load_file` gave, into `model`, whatever wrapped
    them or named their shortcuts, and report what fitted.

    Numbers take the model's types. With `strict` anything missing, unexpected or of another shape
    raises DataError, and the model stays as it was; without it what fits is loaded. A missing
    `num_batches_tracked` does not count. reset_head: leave the model's classifier (its last linear
    layer) as it is, whatever the file has in its place: for another number of classes. Raises
    DataError as `load_file` does, and for a linear layer behind a flattened map that the model does
    not declare (see `layout`).
    """
    file = source if isinstance(source, WeightFile) else load_file(source)
    own = model.state_dict()
    maps = flattened_maps(model)
    names, report = _compare(file, own, reset_head)
    if strict and not report.complete:
        found = file.metadata.get("model") or guess(file.arrays)
        looks = f" (they look like {show(str(found))[1:-1]})" if found else ""
        raise DataError(f"{file.path}: weights of another model{looks}: {report}")
    state = dict(own)
    for name in report.matched:
        array, wanted = file.arrays[names[name]], own[name].dtype
        if wanted.kind == "f" and array.dtype.kind != "f":
            raise DataError(f"{file.path}: {names[name]} is {array.dtype}, expected {wanted}")
        with np.errstate(over="ignore"):
            array = array.astype(wanted, copy=False)
        state[name] = to_memory(name, array, flattened_from=maps.get(name))
    model.load_state_dict(state)
    return report


def _compare(
    file: WeightFile, own: Mapping[str, np.ndarray], reset_head: bool
) -> tuple[dict[str, str], Report]:
    """`{name in the model: name in the file}`, and how the two meet."""
    names = {ours: theirs for theirs, ours in match_names(file.arrays, own).items()}
    met = set(names.values())
    report = Report(
        matched=[],
        missing=[n for n in own if n not in names and not n.endswith(COUNTER)],
        unexpected=[n for n in file.arrays if n not in met and not n.endswith((COUNTER, AVERAGED))],
        mismatched=[],
    )
    for name, theirs in names.items():
        given, wanted = file.arrays[theirs].shape, file_shape(own[name].shape)
        if given == wanted:
            report.matched.append(name)
        else:
            report.mismatched.append((name, given, wanted))
    if reset_head:
        report = _without_head(report, file, own)
    for name in report.matched:
        kind = number_type(file.kinds[names[name]])
        if own[name].dtype.kind == "f" and kind != own[name].dtype.name:
            report.converted[kind] = report.converted.get(kind, 0) + 1
    return names, report


def _without_head(report: Report, file: WeightFile, own: Mapping[str, np.ndarray]) -> Report:
    """The report when the model keeps its classifier, and the file's does not count."""
    dense = [name.rpartition(".")[0] for name, array in own.items() if array.ndim == 2]
    head = {n for n in own if dense and n.rpartition(".")[0] == dense[-1]}
    theirs = {n.rpartition(".")[0] for n, array in file.arrays.items() if array.ndim == 2}
    return Report(
        matched=[n for n in report.matched if n not in head],
        missing=[n for n in report.missing if n not in head],
        unexpected=[n for n in report.unexpected if n.rpartition(".")[0] not in theirs],
        mismatched=[row for row in report.mismatched if row[0] not in head],
        reset=[n for n in own if n in head],
    )


def save(
    model: HasState,
    path: str | os.PathLike[str],
    metadata: Mapping[str, str] | None = None,
    *,
    format: str = "safetensors",
) -> None:
    """Write the model's weights in PyTorch's names and layouts, whole or not at all.

    format: "safetensors", or "pth" for a state dict that `torch.load(path, weights_only=True)`
    gives back. metadata: text by name, kept in safetensors' header; a .pth has no place for it.
    Raises DataError when the place cannot be written to, and for a linear layer behind a flattened
    map that the model does not declare.
    """
    if format not in FORMATS:
        raise ValueError(f"save: format is {format!r} but must be one of {', '.join(FORMATS)}")
    arrays = file_arrays(model)
    if format == "safetensors":
        save_safetensors(path, arrays, metadata)
    elif metadata:
        raise ValueError("save: a .pth file has no place for metadata")
    else:
        save_pth(path, arrays)


def file_arrays(model: HasState) -> dict[str, np.ndarray]:
    """The model's weights in PyTorch's names and layouts; raises DataError as `save` does."""
    maps = flattened_maps(model)
    return {
        name: to_file(name, Tensor(array).numpy(), flattened_from=maps.get(name))
        for name, array in model.state_dict().items()
    }
