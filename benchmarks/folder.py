"""Training on a folder of mixed pictures against the same training on arrays in memory.

    python -m benchmarks.folder --make DIR [--count 5000]      # write the pictures: minutes
    python -m benchmarks.folder --fill DIR --cache CACHE       # one pass that only decodes
    python -m benchmarks.folder --measure DIR [--cache CACHE]  # ResNet-18, 224x224, batch 32
    python -m benchmarks.folder --run DIR                      # a whole run: 10 minutes

The pictures: ten classes, the longer side 50 to 3,000 pixels (uniform), thirds of JPEG, PNG and
WebP, one in a hundred damaged. `--measure` takes turns between a few steps on arrays and a few on
the folder. Workers prepare batches ahead, so each turn of the folder ends when they have prepared
as many as there were before it: what it took is neither given away nor borrowed. Ratios are medians
of the rounds, `spread` is the lowest and highest.

`--run` starts without any copies, trains on all pictures for two epochs, with a few steps on arrays
between every twenty, and takes the other epochs of the recipe to be as fast as the second. The
ratio is the time that the run would have taken on arrays, each part at the speed of the turns
beside it, to the time that it took.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image, ImageChops

import minires as mr
from minires import data
from minires.data.workers import Workers, usable_cores
from minires.train.config import TrainConfig
from minires.train.setup import make_model, make_optimizer, make_schedule
from minires.train.step import TrainStep

from .machine import cpu_name

__all__ = ["main", "make", "measure", "run"]

SIDES = (50, 3000)  # pixels: of the longer side
DAMAGED = 100  # one in so many
SIZE, CLASSES = 224, 10
TURN, BETWEEN = 20, 3  # steps of `--run` on the folder, and between them on arrays
KINDS: list[tuple[str, dict[str, Any]]] = [
    ("jpg", {"quality": 88}),
    ("png", {"compress_level": 3}),
    ("webp", {"quality": 85, "method": 1}),
]


def make(root: Path, count: int, seconds: float) -> int:
    """Write what is missing of `count` pictures, for about `seconds`; returns how many are there.

    Picture i is a pure function of i: an enlarged figure of `shapes` with fine noise over it.
    """
    figures, start = data.shapes("train", 500), time.monotonic()
    tile = np.random.default_rng(0).integers(0, 24, (3072, 3072, 1), np.uint8)
    noise = Image.fromarray(np.repeat(tile, 3, axis=2))
    for i in range(count):
        if time.monotonic() - start > seconds:
            return i
        ending, options = KINDS[i % 3]
        label = int(figures.labels[i % 500])
        path = root / figures.classes[label] / f"{i:05}.{ending}"
        if path.exists():
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        beside = path.with_suffix(".new")
        picture(figures.images[i % 500], noise, i).save(beside, format_of(ending), **options)
        if i % DAMAGED == 37:
            whole = beside.read_bytes()
            beside.write_bytes(whole[: len(whole) // 3] if i % 200 == 37 else os.urandom(5000))
        beside.rename(path)
    return count


def format_of(ending: str) -> str:
    return {"jpg": "JPEG", "png": "PNG", "webp": "WEBP"}[ending]


def picture(figure: np.ndarray, noise: Image.Image, i: int) -> Image.Image:
    """Figure uint8 (32, 32, 3), enlarged; now and then grey, with a palette or with an alpha."""
    rng = np.random.default_rng(i)
    long = int(rng.integers(SIDES[0], SIDES[1] + 1))
    short = max(SIDES[0], int(long * rng.uniform(0.5, 1)))
    size = (long, short) if rng.random() < 0.7 else (short, long)
    image = Image.fromarray(figure).resize(size, Image.Resampling.BICUBIC)
    left, top = rng.integers(0, 3072 - np.array(size) + 1).tolist()
    image = ImageChops.add(image, noise.crop((left, top, left + size[0], top + size[1])))
    mode = rng.choice(["RGB", "L", "P", "RGBA"], p=[0.85, 0.05, 0.05, 0.05])
    if mode == "RGBA" and i % 3:
        image.putalpha(200)
        return image
    if mode == "P" and i % 3 == 1:
        return image.quantize()
    return image.convert("L") if mode == "L" else image


class Spent(NamedTuple):
    """What some steps took: images, seconds, CPU time of decoding and of all else."""

    images: float = 0
    seconds: float = 0.0
    decoding: float = 0.0
    training: float = 0.0

    @property
    def rate(self) -> float:
        return self.images / self.seconds

    @property
    def share(self) -> float:
        return self.decoding / (self.decoding + self.training)

    def plus(self, other: Spent, times: int = 1) -> Spent:
        return Spent(*(a + times * b for a, b in zip(self, other)))


class Turns:
    """Training steps on endless batches, a few at a time."""

    def __init__(self, step: Any, loader: Any, reader: data.PictureReader | None = None) -> None:
        self.step, self.loader, self.reader = step, loader, reader
        self.batches = self.endless()

    def endless(self) -> Iterator[Any]:
        epoch = 0
        while True:
            self.loader.set_epoch(epoch)
            yield from self.loader
            epoch += 1

    def settle(self) -> None:
        """Wait until the workers have nothing left to do."""
        if self.reader is not None and isinstance(self.reader._engine, Workers):
            self.reader._engine.settle()

    def turn(self, steps: int) -> Spent:
        """Some steps."""
        used, done, start = self.seconds(), 0, time.perf_counter()
        own = time.process_time()
        for _ in range(steps):
            images, labels = next(self.batches)
            self.step(images, labels)
            done += len(labels)
        self.settle()
        took = time.perf_counter() - start
        return Spent(done, took, self.seconds() - used, time.process_time() - own)

    def seconds(self) -> float:
        return 0.0 if self.reader is None else self.reader.seconds


def training_step() -> Any:
    """ResNet-18 with the recipe of `minires train --dataset folder`."""
    config = TrainConfig(dataset="folder", model="resnet18").resolved()
    model = make_model(config, CLASSES, "cpu").train()
    optimizer = make_optimizer(config, model)
    schedule = make_schedule(config, optimizer, 100_000)
    return TrainStep(model, optimizer, schedule, label_smoothing=config.label_smoothing or 0.0)


def arrays(count: int) -> data.Dataset:
    """Random pictures in memory."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (count, SIZE, SIZE, 3), np.uint8)
    return data.Dataset(images, np.arange(count) % CLASSES, [str(k) for k in range(CLASSES)], "a")


def folder_loader(
    root: Path, batch: int, reader: data.PictureReader, **shares: float
) -> data.PictureLoader:
    """The training batches of `minires train --dataset folder`."""
    pictures = data.picture_folder(root, **shares)  # type: ignore[arg-type]
    augment = data.PictureAugment(jitter=0.2)
    options: dict[str, Any] = {"shuffle": True, "stand_ins": True, "drop_last": True}
    return data.PictureLoader(pictures, batch, size=SIZE, augment=augment, reader=reader, **options)


def fill(root: Path, batch: int, reader: data.PictureReader, seconds: float) -> dict[str, Any]:
    """Decode the whole folder without training, or for some seconds."""
    start, done = time.perf_counter(), 0
    for split in data.picture_folders(root).values():
        for _, labels in data.PictureLoader(split, batch, size=SIZE, reader=reader):
            done += len(labels)
            if time.perf_counter() - start > seconds:
                break
    took = time.perf_counter() - start
    rate = {"img_per_s": round(done / took, 1), "cpu_ms": round(1e3 * reader.seconds / done, 2)}
    return {"read": done, "skipped": len(reader.skipped), "seconds": round(took, 1), **rate}


def measure(
    root: Path, batch: int, reader: data.PictureReader, rounds: int, steps: int
) -> dict[str, Any]:
    """Arrays and folder in turns, one network and optimiser for both."""
    step = training_step()
    on_arrays = Turns(step, data.Loader(arrays(4 * batch), batch, shuffle=True))
    on_folder = Turns(step, folder_loader(root, batch, reader), reader)
    for turns in (on_arrays, on_folder):  # compile, warm up, prepare batches
        turns.turn(2)
    pairs = [(on_arrays.turn(steps), on_folder.turn(steps)) for _ in range(rounds)]
    ratios = [folder.rate / array.rate for array, folder in pairs]
    return {
        "arrays": round(statistics.median(array.rate for array, _ in pairs), 2),
        "folder": round(statistics.median(folder.rate for _, folder in pairs), 2),
        "ratio": round(statistics.median(ratios), 3),
        "spread": [round(min(ratios), 3), round(max(ratios), 3)],
        "decode_cpu_share": round(statistics.median(folder.share for _, folder in pairs), 3),
        "skipped": len(reader.skipped),
        "batch": batch,
    }


def run(
    root: Path, batch: int, reader: data.PictureReader, epochs: int, timed: int
) -> dict[str, Any]:
    """A run of `epochs` epochs on all pictures, of which `timed` are trained and the others taken
    to be as the last of them.
    """
    step = training_step()
    on_arrays = Turns(step, data.Loader(arrays(4 * batch), batch, shuffle=True))
    loader = folder_loader(root, batch, reader, val_fraction=0, test_fraction=0)
    on_folder = Turns(step, loader, reader)
    on_arrays.turn(2)  # compile, warm up
    before, whole, same, each = on_arrays.turn(BETWEEN), Spent(), 0.0, []
    for epoch in range(timed):
        spent, expected = Spent(), 0.0  # expected: seconds on arrays
        for first in range(0, len(loader), TURN):
            part = on_folder.turn(min(TURN, len(loader) - first))
            after = on_arrays.turn(BETWEEN)
            spent, beside = spent.plus(part), (before.rate + after.rate) / 2
            expected, before = expected + part.images / beside, after
            line = f"epoch {epoch + 1}, step {first}: {part.rate:.1f} img/s, arrays {beside:.1f}"
            print(line, file=sys.stderr, flush=True)
        times = 1 if epoch < timed - 1 else epochs - timed + 1
        whole, same = whole.plus(spent, times), same + times * expected
        each.append(summary(spent, expected))
    total = {"pictures": len(loader.dataset), "epochs": epochs, "trained": timed}
    return {**total, **summary(whole, same), "each": each, "batch": batch}


def summary(spent: Spent, expected: float) -> dict[str, float]:
    """Speeds, their ratio and the share, of what would have taken `expected` seconds on arrays."""
    speeds = {"arrays": round(spent.images / expected, 2), "folder": round(spent.rate, 2)}
    ratio = round(expected / spent.seconds, 3)
    return {**speeds, "ratio": ratio, "decode_cpu_share": round(spent.share, 3)}


def listed(reader: data.PictureReader, root: Path) -> dict[str, int]:
    """How many pictures were listed as damaged, and how many are but were not."""
    made = (path for path in root.glob("*/*") if path.stem.isdigit())
    files = (str(path) for path in made if int(path.stem) % DAMAGED == 37)
    missed = sum(file not in reader.skipped for file in files)
    return {"skipped": len(reader.skipped), "damaged_but_not_listed": missed}


def main(argv: Sequence[str] | None = None) -> int:
    """The command line; returns its exit status."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.folder", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    what = parser.add_mutually_exclusive_group(required=True)
    for name in ("make", "fill", "measure", "run"):
        what.add_argument(f"--{name}", type=Path, metavar="DIR")
    parser.add_argument("--count", type=int, default=5000)
    parser.add_argument("--seconds", type=float, default=1e9, help="stop making or filling then")
    parser.add_argument("--cache", metavar="DIR", help="shrunken copies of large pictures")
    parser.add_argument("--workers", type=int, default=usable_cores())
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=4)
    recipe = TrainConfig(dataset="folder").resolved().epochs
    parser.add_argument("--epochs", type=int, default=recipe, help="of the run (the recipe's)")
    parser.add_argument("--timed", type=int, default=2, help="epochs that are trained (2)")
    given = parser.parse_args(argv)
    if given.make:
        print(make(given.make, given.count, given.seconds), "of", given.count, "pictures")
        return 0
    result = measured(given)
    result |= {"workers": given.workers, "cpu": cpu_name()}
    result |= {"threads": mr.threads(), "date": time.strftime("%Y-%m-%d")}
    print(json.dumps(result))
    return 0


def measured(given: argparse.Namespace) -> dict[str, Any]:
    """What was asked for, and what there is to say of the copies."""
    with tempfile.TemporaryDirectory() as empty:
        cache = empty if given.run else given.cache
        copies = data.Copies(cache) if cache else None
        start = time.perf_counter()
        with data.PictureReader(given.workers, copies=copies) as reader:
            if given.fill:
                result = fill(given.fill, given.batch, reader, given.seconds)
            elif given.measure:
                result = measure(given.measure, given.batch, reader, given.rounds, given.steps)
            else:
                result = run(given.run, given.batch, reader, given.epochs, given.timed)
                result |= listed(reader, given.run)
                result |= {"minutes": round((time.perf_counter() - start) / 60, 1)}
        if copies is None:
            return {**result, "copies": None}
        copies.make_room()  # counts them
        return {**result, "copies": copies.count, "copies_mb": round(copies.bytes / 1e6)}


if __name__ == "__main__":
    sys.exit(main())
