"""Picture files, as a network wants to see them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from ..data import normalise
from ..data.decode import do
from ..data.pictures import ENDINGS, printable
from ..data.task import Limits, Task, centre_share
from ..errors import DataError
from .folder import Card

__all__ = ["find_pictures", "picture_batches", "read_image"]

BATCH = 64  # pictures that go through the network together
MAX_PIXELS = 100_000_000  # of a picture: more is a bomb, or takes too much memory


def read_image(path: str | Path, size: int) -> np.ndarray:
    """A picture file as uint8 (size, size, 3): its middle square, resized.

    Proportions stay; grey and palette pictures become RGB, transparency becomes white, and a
    camera's rotation mark is obeyed. Raises DataError for a file that is missing, no picture,
    damaged or enormous.
    """
    pixels = np.empty((size, size, 3), np.uint8)
    task = Task(0, [str(path)], size, centre=centre_share(size))
    outcome = do(task, Limits(MAX_PIXELS), pixels.reshape(-1).data)
    if not outcome.done:
        reason = outcome.reasons[0]
        if reason == "not a picture":
            raise DataError(f"{printable(str(path))}: not a picture that Pillow can read")
        raise DataError(f"{printable(str(path))}: cannot read this picture: {reason}")
    return pixels


def find_pictures(paths: Sequence[str | Path]) -> tuple[list[str], list[str]]:
    """(files, those of them that were found in folders): a path that is a folder stands for all
    pictures in it, at any depth, in order of their names.

    Raises DataError for a folder without pictures.
    """
    files: list[str] = []
    found: list[str] = []
    for path in map(Path, paths):
        if not path.is_dir():
            files.append(str(path))
            continue
        inside = sorted(
            str(file)
            for file in path.rglob("*")
            if file.suffix.lower() in ENDINGS and file.is_file() and file.name[0] != "."
        )
        if not inside:
            raise DataError(f"{path}: no pictures in this folder")
        files += inside
        found += inside
    return files, found


def picture_batches(
    card: Card, paths: Sequence[str | Path], skipped: dict[str, str] | None = None
) -> Iterator[tuple[list[str], np.ndarray]]:
    """(files, images float32 (b, size, size, 3)), prepared for the network of `card`.

    A path may be a folder. A picture in a folder that cannot be read is put into `skipped`, with
    the reason, and left out; without `skipped`, or for a file named itself, DataError is raised.
    """
    files, found = find_pictures(paths)
    may_skip = set() if skipped is None else set(found)
    for start in range(0, len(files), BATCH):
        some, images = [], []
        for file in files[start : start + BATCH]:
            try:
                images.append(read_image(file, card.size))
                some.append(file)
            except DataError as error:
                if file not in may_skip:
                    raise
                assert skipped is not None
                skipped[file] = str(error)
        if some:
            yield some, normalise(np.stack(images), card.mean, card.std)
