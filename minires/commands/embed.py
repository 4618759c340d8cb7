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

from ..train import ConfigError, Loaded, Watch, embed, load_trained, picture_batches
from ..train.evaluate import labelled_images
from ..train.setup import eval_loader
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
    loaded = load_trained(given.source, **loading_options(given))
    skipped: dict[str, str] = {}
    if given.images:
        head, rows = ["file"], []
        batches = _of_pictures(loaded, given.images, skipped, rows)
    else:
        options = {name: getattr(given, name) for name in ("data", "split", "limit", "download")}
        images = labelled_images(given.source, loaded.card, **options)
        names = images.classes
        head = ["index", "class"]
        rows = [[k, names[label]] for k, label in enumerate(images.labels.tolist())]
        loader = eval_loader(images, loaded.card.mean, loaded.card.std)
        batches = (x for x, _ in loader)
    watch = Watch(quiet=given.quiet)
    with watch.bar("images", None, delay=0.1) as bar:
        vectors = embed(loaded, batches, bar.update)
    warn_skipped(skipped)
    _write(path, vectors, [head, *rows])
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


def _write(path: Path, vectors: np.ndarray, rows: list[list[Any]]) -> None:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    with atomic_write(path.with_suffix(".csv")) as file:
        file.write(text.getvalue().encode("utf-8", "surrogateescape"))
    with atomic_write(path) as file:
        np.save(file, vectors)
