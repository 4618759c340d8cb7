"""Data sets by name, as the `minires` command asks for them. A new one is one line in `LOADERS`."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from ..errors import DataError
from .cifar import cifar10, cifar100, find_layout, parent_folder
from .dataset import Dataset
from .download import download as fetch_archive
from .pictures import Pictures, picture_folder
from .shapes import SIZES, shapes

__all__ = ["dataset_names", "default_data_dir", "load_dataset"]


def _shapes(_data_dir: Path, split: str, limit: int | None) -> Dataset:
    size = SIZES.get(split, 0)
    return shapes(split, None if limit is None else min(limit, size))


def _folder(data_dir: Path, split: str, limit: int | None) -> Pictures:
    return picture_folder(data_dir, split).spread(limit)


LOADERS: dict[str, Callable[..., Any]] = {
    "shapes": _shapes,
    "cifar10": cifar10,
    "cifar100": cifar100,
    "folder": _folder,
}
ARCHIVES = ("cifar10", "cifar100")  # these can be fetched


def dataset_names() -> list[str]:
    """The names that `load_dataset` knows.

    >>> dataset_names()
    ['shapes', 'cifar10', 'cifar100', 'folder']
    """
    return list(LOADERS)


def default_data_dir() -> Path:
    """The folder that the environment variable MINIRES_DATA names, else `data` in the current
    one."""
    return Path(os.environ.get("MINIRES_DATA") or "data")


def load_dataset(
    name: str,
    data_dir: str | os.PathLike[str] | None = None,
    split: str = "train",
    limit: int | None = None,
    download: bool = False,
    *,
    mirrors: str | Sequence[str] | None = None,
    progress: bool = True,
) -> Any:
    """The `split` ("train" or "test") of a data set, or `limit` of its images: a `Dataset`, or
    `Pictures` for "folder".

    `data_dir` is the folder of the files or its parent, by default `default_data_dir()`. With
    `download`, a set that is not there is fetched first (see `minires.data.download`). Raises
    ValueError for an unknown name, split or limit, DataError for missing or damaged files.

    >>> load_dataset("shapes", split="test", limit=30)
    Dataset shapes: 30 images 32x32x3, 10 classes
    """
    if name not in LOADERS:
        known = ", ".join(LOADERS)
        raise ValueError(f"load_dataset: name is {name!r} but must be one of {known}")
    root = default_data_dir() if data_dir is None else Path(data_dir)
    if download and name in ARCHIVES:
        try:
            find_layout(name, root, split)
        except DataError:
            root = parent_folder(root)
            fetch_archive(name, root, mirrors=mirrors, progress=progress)
    return LOADERS[name](root, split, limit)
