"""CIFAR-10 and CIFAR-100 from a folder, in the official binary or Python layout.

Both hold an image as three planes of 32 rows of 32 bytes, red first; here they become (n, 32, 32,
3). A folder is checked by the sizes of its files and the range of its labels, so images in another
order than the official one are welcome.

Source: A. Krizhevsky, "Learning multiple layers of features from tiny images", 2009,
https://www.cs.toronto.edu/~kriz/cifar.html
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..errors import DataError
from .dataset import Dataset
from .pickles import REMEDY, read_pickle

__all__ = ["LAYOUTS", "Layout", "cifar10", "cifar100", "find_layout", "parent_folder"]

PIXELS = 3 * 32 * 32  # bytes of an image
CIFAR10_CLASSES = [
    "airplane",
    "automobile",
    "bird",
    "cat",
    "deer",
    "dog",
    "frog",
    "horse",
    "ship",
    "truck",
]


@dataclass(frozen=True)
class Layout:
    """The files of one official archive: those of each split, with `rows` images in each."""

    folder: str
    splits: dict[str, tuple[str, ...]]
    rows: dict[str, int]
    names: str  # the file of the class names, which may be missing
    classes: int
    label_key: str  # pickles only
    names_key: str
    label_bytes: int  # binary files only: the last of them is the label; 0 marks pickles


_BATCHES = tuple(f"data_batch_{i}" for i in range(1, 6))
LAYOUTS: dict[str, tuple[Layout, ...]] = {
    "cifar10": (
        Layout(
            folder="cifar-10-batches-bin",
            splits={"train": tuple(f"{b}.bin" for b in _BATCHES), "test": ("test_batch.bin",)},
            rows={"train": 10_000, "test": 10_000},
            names="batches.meta.txt",
            classes=10,
            label_key="",
            names_key="",
            label_bytes=1,
        ),
        Layout(
            folder="cifar-10-batches-py",
            splits={"train": _BATCHES, "test": ("test_batch",)},
            rows={"train": 10_000, "test": 10_000},
            names="batches.meta",
            classes=10,
            label_key="labels",
            names_key="label_names",
            label_bytes=0,
        ),
    ),
    "cifar100": (
        Layout(
            folder="cifar-100-binary",
            splits={"train": ("train.bin",), "test": ("test.bin",)},
            rows={"train": 50_000, "test": 10_000},
            names="fine_label_names.txt",
            classes=100,
            label_key="",
            names_key="",
            label_bytes=2,  # the coarse label, the fine label
        ),
        Layout(
            folder="cifar-100-python",
            splits={"train": ("train",), "test": ("test",)},
            rows={"train": 50_000, "test": 10_000},
            names="meta",
            classes=100,
            label_key="fine_labels",
            names_key="fine_label_names",
            label_bytes=0,
        ),
    ),
}


def cifar10(
    data_dir: str | os.PathLike[str], split: str = "train", limit: int | None = None
) -> Dataset:
    """The 50,000 "train" or 10,000 "test" images of CIFAR-10, or the first `limit` of them.

    `data_dir` is the folder of the files or its parent. Raises DataError, naming the file, for one
    that is missing, truncated or damaged; ValueError for another split.

    >>> cifar10("/data", "test")  # doctest: +SKIP
    Dataset cifar10: 10000 images 32x32x3, 10 classes
    """
    return _load("cifar10", data_dir, split, limit)


def cifar100(
    data_dir: str | os.PathLike[str], split: str = "train", limit: int | None = None
) -> Dataset:
    """Like `cifar10`, with the 100 fine classes of CIFAR-100."""
    return _load("cifar100", data_dir, split, limit)


def _load(name: str, data_dir: str | os.PathLike[str], split: str, limit: int | None) -> Dataset:
    if split not in ("train", "test"):
        raise ValueError(f"{name}: split is {split!r} but must be 'train' or 'test'")
    if limit is not None and limit < 1:
        raise ValueError(f"{name}: limit is {limit} but must be at least 1")
    folder, layout = find_layout(name, data_dir, split)
    classes = _class_names(folder / layout.names, layout)
    read: Callable[[Path, Layout, int], tuple[np.ndarray, np.ndarray]]
    read = _read_binary if layout.label_bytes else _read_python
    rows, parts, wanted = layout.rows[split], [], limit
    for file in layout.splits[split]:
        if wanted is not None and wanted <= 0:
            break
        planes, labels = read(folder / file, layout, rows)
        _check_labels(folder / file, labels, layout.classes)
        parts.append((planes[:wanted], labels[:wanted].astype(np.int64)))
        wanted = None if wanted is None else wanted - rows
    images = np.empty((sum(len(labels) for _, labels in parts), 32, 32, 3), np.uint8)
    start = 0
    for planes, labels in parts:
        images[start : start + len(labels)] = planes.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
        start += len(labels)
    return Dataset(images, np.concatenate([labels for _, labels in parts]), classes, name)


def find_layout(name: str, data_dir: str | os.PathLike[str], split: str) -> tuple[Path, Layout]:
    """The folder of the files of `split` and its layout; `data_dir` is that folder or its parent.

    Of several, the first that is complete. Raises DataError with the remedy when there is none.
    """
    root, started = Path(data_dir), []
    for layout in LAYOUTS[name]:
        for folder in (root, root / layout.folder):
            missing = [file for file in layout.splits[split] if not (folder / file).is_file()]
            if not missing:
                return folder, layout
            if len(missing) < len(layout.splits[split]) or (folder / layout.names).is_file():
                started.append(folder / missing[0])
    if started:
        raise DataError(f"{started[0]}: file of {name} is missing; {_remedy(root)}")
    expected = " or ".join(layout.folder for layout in LAYOUTS[name])
    raise DataError(f"{root}: holds no {name}, expected a folder {expected}; {_remedy(root)}")


def parent_folder(data_dir: str | os.PathLike[str]) -> Path:
    """Where the archives are unpacked: `data_dir`, or its parent when it is an archive's folder.

    >>> parent_folder("somewhere/cifar-10-batches-py").name
    'somewhere'
    """
    root = Path(data_dir)
    folders = [layout.folder for layouts in LAYOUTS.values() for layout in layouts]
    return root.parent if root.name in folders else root


def _remedy(root: Path) -> str:
    return f"get it with --download --data {parent_folder(root)}"


def _damaged(path: Path, found: str, expected: str) -> DataError:
    return DataError(f"{path}: {found} but must {expected}; {REMEDY}")


def _read_binary(path: Path, layout: Layout, rows: int) -> tuple[np.ndarray, np.ndarray]:
    """Planes (rows, 3072), mapped: what nobody asks for is never read; and labels (rows,)."""
    record, size = layout.label_bytes + PIXELS, path.stat().st_size
    if size != rows * record:
        raise _damaged(path, f"has {size:,} bytes", f"have {rows * record:,}")
    records = np.memmap(path, np.uint8, mode="r", shape=(rows, record))
    return records[:, layout.label_bytes :], np.array(records[:, layout.label_bytes - 1])


def _read_python(path: Path, layout: Layout, rows: int) -> tuple[np.ndarray, np.ndarray]:
    content = read_pickle(path)
    for key in ("data", layout.label_key):
        if key not in content:
            raise _damaged(
                path, f"holds {', '.join(sorted(content)) or 'nothing'}", f"hold {key!r}"
            )
    planes, labels = content["data"], np.asarray(content[layout.label_key], object)
    if not (
        isinstance(planes, np.ndarray)
        and planes.dtype == np.uint8
        and planes.shape == (rows, PIXELS)
    ):
        found = f"{getattr(planes, 'dtype', type(planes).__name__)} {np.shape(planes)}"
        raise _damaged(path, f"holds data {found}", f"hold uint8 {(rows, PIXELS)}")
    if labels.shape != (rows,) or not all(isinstance(label, int) for label in labels):
        raise _damaged(path, f"holds labels of shape {labels.shape}", f"hold {rows} integers")
    return planes, labels


def _check_labels(path: Path, labels: np.ndarray, classes: int) -> None:
    wrong = (labels < 0) | (labels >= classes)
    if wrong.any():
        at = int(wrong.argmax())
        raise _damaged(
            path, f"has label {labels[at]} at image {at}", f"have labels 0 to {classes - 1}"
        )


def _class_names(path: Path, layout: Layout) -> list[str]:
    if not path.is_file():
        known = CIFAR10_CLASSES if layout.classes == len(CIFAR10_CLASSES) else ()
        return list(known) or [f"class {i}" for i in range(layout.classes)]
    if layout.label_bytes:
        names = path.read_text(encoding="utf-8", errors="replace").split()
    else:
        names = read_pickle(path).get(layout.names_key)
        names = (
            [n.decode() if isinstance(n, bytes) else n for n in names]
            if isinstance(names, list)
            else []
        )
    if len(names) != layout.classes or not all(isinstance(name, str) for name in names):
        raise _damaged(path, f"names {len(names)} classes", f"name {layout.classes}")
    return names
