"""A labelled set of images in memory, and the ways to take a part of it.

Pixels stay bytes, as the files hold them: a quarter of the memory of float32, and the loader's
kernels turn a byte into a normalised number by one table look-up.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..errors import DataError, DTypeError, ShapeError
from ..kernels.random import Key, permutation

__all__ = ["Dataset", "limit", "only_classes", "split_validation"]

SPLIT_STREAM = 0xDA7A_0001  # random streams of this package are 0xDA7A_....


@dataclass(frozen=True, eq=False, repr=False)
class Dataset:
    """Images uint8 (n, h, w, c), labels int64 (n,), both read-only, and the names of the classes.

    An integer index gives (image, label); a slice, mask or index array gives the smaller `Dataset`.
    Raises DTypeError, ShapeError or DataError (a label out of range).

    >>> blank = np.zeros((3, 8, 8, 1), np.uint8)
    >>> digits = Dataset(blank, np.array([0, 1, 1]), ["zero", "one"], "digits")
    >>> digits
    Dataset digits: 3 images 8x8x1, 2 classes
    >>> len(digits[1:])
    2
    """

    images: np.ndarray
    labels: np.ndarray
    classes: Sequence[str]
    name: str

    def __post_init__(self) -> None:
        images, labels = np.asarray(self.images), np.asarray(self.labels)
        if images.dtype != np.uint8:
            raise DTypeError(f"{self.name}: images must be uint8 (0 to 255), got {images.dtype}")
        if labels.dtype.kind not in "iu":
            raise DTypeError(f"{self.name}: labels must be integers, got {labels.dtype}")
        if images.ndim != 4:
            raise ShapeError(f"{self.name}: images must be (n, h, w, c), got shape {images.shape}")
        if labels.shape != images.shape[:1]:
            raise ShapeError(
                f"{self.name}: labels must be ({len(images)},) for images {images.shape}, "
                f"got {labels.shape}"
            )
        _check_labels(labels, len(self.classes), self.name)
        object.__setattr__(self, "images", _read_only(images))
        object.__setattr__(self, "labels", _read_only(labels.astype(np.int64)))
        object.__setattr__(self, "classes", list(self.classes))

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, int | np.integer):
            return self.images[index], int(self.labels[index])
        return Dataset(self.images[index], self.labels[index], self.classes, self.name)

    def __repr__(self) -> str:
        h, w, c = self.images.shape[1:]
        return f"Dataset {self.name}: {len(self)} images {h}x{w}x{c}, {len(self.classes)} classes"


def _check_labels(labels: np.ndarray, classes: int, name: str) -> None:
    if not len(labels):
        return
    wrong = (labels < 0) | (labels >= classes)
    if wrong.any():
        at = int(wrong.argmax())
        raise DataError(f"{name}: label {labels[at]} of image {at} must be 0 to {classes - 1}")


def _read_only(array: np.ndarray) -> np.ndarray:
    view = array.view()
    view.flags.writeable = False
    return view


def limit(dataset: Dataset, count: int | None) -> Dataset:
    """The first `count` images; all of them for None or when there are fewer."""
    if count is None:
        return dataset
    if count < 1:
        raise ValueError(f"limit: count is {count} but must be at least 1")
    return dataset[:count]


def only_classes(dataset: Dataset, classes: Sequence[int | str]) -> Dataset:
    """The images of some classes, by number or name; labels count from 0 in the order given.

    Raises ValueError for a class that the data set does not have, or one given twice.

    >>> blank = np.zeros((4, 8, 8, 1), np.uint8)
    >>> digits = Dataset(blank, np.array([0, 1, 2, 1]), ["zero", "one", "two"], "digits")
    >>> part = only_classes(digits, ["two", "one"])
    >>> part.labels.tolist(), part.classes
    ([1, 0, 1], ['two', 'one'])
    """
    names, numbers = list(dataset.classes), []
    for given in classes:
        number = names.index(given) if given in names else given
        if not isinstance(number, int | np.integer) or not 0 <= number < len(names):
            known = f"0 to {len(names) - 1} or one of {', '.join(names)}"
            raise ValueError(f"only_classes: class is {given!r} but must be {known}")
        numbers.append(int(number))
    if not numbers or len(set(numbers)) < len(numbers):
        raise ValueError(f"only_classes: classes are {list(classes)} but must be different ones")
    new = np.full(len(names), -1)
    new[numbers] = np.arange(len(numbers))
    labels = new[dataset.labels]
    kept = labels >= 0
    chosen = [names[number] for number in numbers]
    return Dataset(dataset.images[kept], labels[kept], chosen, dataset.name)


def split_validation(dataset: Dataset, count: int, seed: int) -> tuple[Dataset, Dataset]:
    """Set `count` images aside: (training, validation), disjoint, a pure function of the seed.

    Raises ValueError unless 0 <= count < len(dataset). Both parts keep the order of the whole.
    """
    if not 0 <= count < len(dataset):
        raise ValueError(f"split_validation: count is {count} but must be 0 to {len(dataset) - 1}")
    held_out = np.zeros(len(dataset), bool)
    held_out[permutation(Key(seed, SPLIT_STREAM), len(dataset))[:count]] = True
    return dataset[~held_out], dataset[held_out]
