"""`minires embed`: pooled features of pictures or of a data set, as a NumPy file."""

from __future__ import annotations

import argparse
import csv
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from ..data import PictureLoader
from ..data.pictures import printable
from ..train import ConfigError, Loaded, Watch, embed, load_trained, picture_batches
from ..train.evaluate import labelled_batches
from ..weights import atomic_write
from .options import (
    add_command,
    data_options,
    device_options,
    loading_options,
    source_options,
    warn_skipped,
)

__all__ = ["add", "run"]

EXAMPLES = [
    "runs/quick --limit 100 --output shapes.npy",
    "runs/quick/best.safetensors runs/quick/curves.png --output pictures.npy",
]


def add(commands: Any) -> None:
    """Add the command to `commands`."""
    text = "write the features of images, before the classifier, as .npy"
    parser = add_command(commands, "embed", run, text, EXAMPLES, needs_run=True)
    parser.add_argument("source", metavar="RUN|FILE", help="run folder or weight file")
    text = "picture files, or folders of them; without any, a data set's images"
    parser.add_argument("images", nargs="*", metavar="IMAGE|DIR", help=text)
    text = "float32 (images, channels); a .csv beside it says what each row is of"
    parser.add_argument("--output", required=True, metavar="F.npy", help=text)
    source_options(parser)
    data_options(parser)
    device_options(parser)
    parser.add_argument("--size", type=int, metavar="PIXELS", help="side that pictures get")
    parser.add_argument("--quiet", action="store_true", help="no progress bar")


def run(given: argparse.Namespace) -> int:
    """Write the two files, and print what is in them."""
    path = Path(given.output)
    if path.suffix != ".npy":
        raise ConfigError(f"--output: must end in .npy, got {given.output}")
    if not path.parent.is_dir():
        raise ConfigError(f"--output: there is no folder {path.parent}")
    loaded = load_trained(given.source, **loading_options(given))
    skipped: dict[str, str] = {}
    rows: list[list[Any]] = [["file"]]
    watch = Watch(quiet=given.quiet)
    with watch.bar("images", None, delay=0.1) as bar:
        if given.images:
            batches = _of_pictures(loaded, given.images, skipped, rows)
            vectors = embed(loaded, batches, bar.update)
        else:
            names = ("data", "split", "limit", "download")
            options = {name: getattr(given, name) for name in names}
            with labelled_batches(given.source, loaded.card, **options) as (images, loader):
                vectors = embed(loaded, (x for x, _ in loader), bar.update)
            rows, skipped = _of_data_set(images, loader)
    warn_skipped(skipped)
    _write(path, vectors, rows)
    found = {"output": str(path), "rows": str(path.with_suffix(".csv"))}
    if given.json:
        print(json.dumps({**found, "shape": list(vectors.shape), "skipped": skipped}))
    else:
        n, c = vectors.shape
        print(f"{n:,} images, {c:,} features each: {path}, rows in {found['rows']}")
    return 0


def _of_pictures(
    loaded: Loaded, paths: list[str], skipped: dict[str, str], rows: list[list[Any]]
) -> Iterator[np.ndarray]:
    """Batches of the pictures; each one's file is added to `rows`."""
    for files, images in picture_batches(loaded.card, paths, skipped):
        rows += [[file] for file in files]
        yield images


def _of_data_set(images: Any, loader: Any) -> tuple[list[list[Any]], dict[str, str]]:
    """The heading and what each row is of; and the pictures that have none because they cannot be
    read.
    """
    names = [images.classes[label] for label in images.labels.tolist()]
    if not isinstance(loader, PictureLoader):
        return [["index", "class"], *map(list, enumerate(names))], {}
    files = [printable(images.path(k)) for k in range(len(images))]
    kept = [[f, name] for f, name in zip(files, names) if f not in loader.skipped]
    return [["file", "class"], *kept], loader.skipped


def _write(path: Path, vectors: np.ndarray, rows: list[list[Any]]) -> None:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    with atomic_write(path.with_suffix(".csv")) as file:
        file.write(text.getvalue().encode("utf-8", "surrogateescape"))
    with atomic_write(path) as file:
        np.save(file, vectors)
