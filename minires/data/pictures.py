"""Folders of picture files: `train/ val/ test/` with one folder a class, or class folders at once.

Nothing is decoded here. Files are listed in a fixed order, so that a seeded split, and whatever is
drawn by a picture's index, is the same on every machine.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import DataError
from ..kernels.random import Key, permutation

__all__ = ["Pictures", "picture_folder", "picture_folders", "printable"]

ENDINGS = {".bmp", ".gif", ".jfif", ".jpe", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"}
SPLITS = {"train": ("train",), "val": ("val", "valid", "validation"), "test": ("test",)}
VAL_STREAM, TEST_STREAM = 0xDA7A_0004, 0xDA7A_0005


@dataclass(frozen=True, eq=False, repr=False)
class Pictures:
    """Picture files below `root` with labels int64 (n,), sizes int64 (n,) in bytes, and the names
    of the classes.

    An index array, mask or slice gives the smaller `Pictures`. `ignored` counts hidden files and
    files of other kinds that were passed over.
    """

    root: Path
    files: list[str]
    labels: np.ndarray
    sizes: np.ndarray
    classes: list[str]
    name: str = "folder"
    ignored: int = 0

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: Any) -> Pictures:
        chosen = np.arange(len(self))[index]
        files = [self.files[i] for i in chosen]
        rest = (self.classes, self.name, self.ignored)
        return Pictures(self.root, files, self.labels[chosen], self.sizes[chosen], *rest)

    def __repr__(self) -> str:
        return f"Pictures {self.root}: {len(self)} pictures, {len(self.classes)} classes"

    def path(self, index: int) -> str:
        """Where picture `index` is."""
        return os.path.join(self.root, self.files[index])

    def spread(self, count: int | None) -> Pictures:
        """`count` of the pictures, spread evenly over the list and so over the classes."""
        if count is None or count >= len(self):
            return self
        return self[np.arange(count) * len(self) // count]


def picture_folder(
    root: str | os.PathLike[str],
    split: str = "train",
    *,
    val_fraction: float = 0.1,
    test_fraction: float = 0.1,
    seed: int = 0,
) -> Pictures:
    """The pictures of one split, "train", "val" or "test"; see `picture_folders`."""
    if split not in SPLITS:
        raise ValueError(f"picture_folder: split is {split!r} but must be train, val or test")
    options: dict[str, Any] = {"val_fraction": val_fraction, "test_fraction": test_fraction}
    return picture_folders(root, seed=seed, **options)[split]


def picture_folders(
    root: str | os.PathLike[str],
    *,
    val_fraction: float = 0.1,
    test_fraction: float = 0.1,
    seed: int = 0,
) -> dict[str, Pictures]:
    """The splits of a folder: {"train": …, "val": …, "test": …}.

    Where `root` has a folder `train` with class folders in it, `val` and `test` may stand beside
    it; else the folders in `root` are the classes. A split without a folder is taken from the
    training pictures, that share of each class, by the seed (`val` may be empty). Pictures are
    found at any depth below their class. Raises DataError when there is nothing to learn from.
    """
    root = Path(root)
    if not root.is_dir():
        raise DataError(f"{root}: no such folder; --data names a folder of pictures")
    parts = {split: _first_folder(root, names) for split, names in SPLITS.items()}
    if parts["train"] is None or not _subfolders(parts["train"]):
        parts = {"train": root, "val": None, "test": None}
    assert parts["train"] is not None
    train = _listed(root, parts["train"], None)
    _check_classes(train, parts["train"])
    found = {"train": train}
    for split, folder in parts.items():
        if split != "train" and folder is not None:
            found[split] = _listed(root, folder, train.classes)
            if not len(found[split]):
                raise DataError(f"{folder}: no pictures in its class folders")
    if "test" not in found:
        found["train"], found["test"] = _held_out(found["train"], test_fraction, seed, TEST_STREAM)
    if "val" not in found:
        # a share of what there was before the test pictures went
        share = val_fraction if parts["test"] else val_fraction / (1 - test_fraction)
        found["train"], found["val"] = _held_out(found["train"], share, seed, VAL_STREAM)
    return found


def printable(name: str) -> str:
    """A file name with what no terminal can show (bytes that are not UTF-8) as escapes."""
    return name.encode("utf-8", "backslashreplace").decode()


def _first_folder(root: Path, names: Sequence[str]) -> Path | None:
    return next((root / name for name in names if (root / name).is_dir()), None)


def _subfolders(folder: Path) -> list[str]:
    try:
        return sorted(p.name for p in os.scandir(folder) if p.is_dir() and p.name[0] != ".")
    except OSError as error:
        raise DataError(f"{folder}: cannot list this folder: {error.strerror}") from None


def _listed(root: Path, folder: Path, classes: Sequence[str] | None) -> Pictures:
    """All pictures of one split; `classes` are those of the training pictures, None there."""
    names = _subfolders(folder)
    if classes is None:
        classes = names
    unknown = [name for name in names if name not in classes]
    if unknown:
        text = f"{folder / unknown[0]}: class '{unknown[0]}' has no folder among the training ones"
        raise DataError(printable(f"{text}, which are {', '.join(classes)}"))
    files: list[str] = []
    labels: list[int] = []
    sizes: list[int] = []
    ignored = sum(not p.is_dir() for p in os.scandir(folder))
    for name in names:
        for path, size in _walk(str(folder / name)):
            if size is None:
                ignored += 1
                continue
            files.append(os.path.relpath(path, root))
            labels.append(classes.index(name))
            sizes.append(size)
    counts = np.array(labels, np.int64), np.array(sizes, np.int64)
    return Pictures(root, files, *counts, list(classes), "folder", ignored)


def _walk(folder: str) -> Iterator[tuple[str, int | None]]:
    """(path, bytes) of the files below, in order; None in place of bytes for those to ignore."""
    seen: set[str] = set()

    def fail(error: OSError) -> None:
        raise DataError(f"{error.filename}: cannot list this folder: {error.strerror}")

    for place, folders, files in os.walk(folder, followlinks=True, onerror=fail):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        real = os.path.realpath(place)
        if real in seen:  # links that lead round in a circle
            folders.clear()
            continue
        seen.add(real)
        for name in sorted(files):
            path = os.path.join(place, name)
            wanted = name[0] != "." and os.path.splitext(name)[1].lower() in ENDINGS
            yield path, _size(path) if wanted else None


def _size(path: str) -> int | None:
    """Its bytes; 0 for a link to nothing, None for what is no file, such as a pipe."""
    try:
        status = os.stat(path)
    except OSError:
        return 0
    return status.st_size if stat.S_ISREG(status.st_mode) else None


def _check_classes(train: Pictures, folder: Path) -> None:
    """Raise DataError unless there are pictures of two classes, and of every class."""
    layout = "expected one folder a class, or train/, val/ and test/ with one folder a class"
    if not train.classes:
        raise DataError(f"{folder}: no class folders: {layout}")
    if not len(train):
        kinds = " ".join(sorted(ENDINGS))
        raise DataError(f"{folder}: no pictures in its {len(train.classes)} folders ({kinds})")
    counts = np.bincount(train.labels, minlength=len(train.classes))
    empty = [printable(name) for name, count in zip(train.classes, counts) if not count]
    if empty:
        raise DataError(f"{folder}: no pictures of class '{empty[0]}' ({len(empty)} such classes)")
    if len(train.classes) < 2:
        raise DataError(f"{folder}: only one class, '{printable(train.classes[0])}': {layout}")


def _held_out(whole: Pictures, share: float, seed: int, stream: int) -> tuple[Pictures, Pictures]:
    """(kept, held out): that share of each class, rounded up or down so that the sum is right, but
    never the last picture of a class.
    """
    out, wanted = np.zeros(len(whole), bool), 0.0
    for k in range(len(whole.classes)):
        members = np.flatnonzero(whole.labels == k)
        wanted += share * len(members)
        count = max(0, min(round(wanted), len(members) - 1))
        wanted -= count
        out[members[permutation(Key(seed, stream, k), len(members))[:count]]] = True
    return whole[~out], whole[out]
