"""Training on a folder of mixed pictures against the same training on arrays in memory.

    python -m benchmarks.folder --make DIR [--count 5000]      # write the pictures: minutes
    python -m benchmarks.folder --fill DIR --cache CACHE       # one pass that only decodes
    python -m benchmarks.folder --measure DIR [--cache CACHE]  # ResNet-18, 224x224, batch 32

The pictures: ten classes, the longer side 50 to 3,000 pixels (uniform), thirds of JPEG, PNG and
WebP, one in a hundred damaged. `--measure` takes turns between a few steps on arrays and a few on
the folder. Workers prepare batches ahead, so each turn of the folder ends when they have prepared
as many as there were before it: what it took is neither given away nor borrowed. Ratios are medians
of the rounds, `spread` is the lowest and highest.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageChops

import minires as mr
from minires import data
from minires.data.workers import Workers, usable_cores
from minires.train.config import TrainConfig
from minires.train.setup import make_model, make_optimizer, make_schedule
from minires.train.step import TrainStep

from .machine import cpu_name

__all__ = ["main", "make", "measure"]

SIDES = (50, 3000)  # pixels: of the longer side
DAMAGED = 100  # one in so many
SIZE, CLASSES = 224, 10
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

    def turn(self, steps: int) -> tuple[float, float]:
        """(images a second, decoding's share of the CPU time) of some steps."""
        used, done, start = self.seconds(), 0, time.perf_counter()
        own = time.process_time()
        for _ in range(steps):
            images, labels = next(self.batches)
            self.step(images, labels)
            done += len(labels)
        self.settle()
        took = time.perf_counter() - start
        decoding, training = self.seconds() - used, time.process_time() - own
        return done / took, decoding / (decoding + training)

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


def folder_loader(root: Path, batch: int, reader: data.PictureReader) -> data.PictureLoader:
    """The training batches of `minires train --dataset folder`."""
    pictures = data.picture_folder(root)
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
    pairs = [(on_arrays.turn(steps)[0], *on_folder.turn(steps)) for _ in range(rounds)]
    ratios = [folder / array for array, folder, _ in pairs]
    return {
        "arrays": round(statistics.median(pair[0] for pair in pairs), 2),
        "folder": round(statistics.median(pair[1] for pair in pairs), 2),
        "ratio": round(statistics.median(ratios), 3),
        "spread": [round(min(ratios), 3), round(max(ratios), 3)],
        "decode_cpu_share": round(statistics.median(pair[2] for pair in pairs), 3),
        "skipped": len(reader.skipped),
        "batch": batch,
    }


def main(argv: Sequence[str] | None = None) -> int:
    """The command line; returns its exit status."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.folder", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    what = parser.add_mutually_exclusive_group(required=True)
    for name in ("make", "fill", "measure"):
        what.add_argument(f"--{name}", type=Path, metavar="DIR")
    parser.add_argument("--count", type=int, default=5000)
    parser.add_argument("--seconds", type=float, default=1e9, help="stop making or filling then")
    parser.add_argument("--cache", metavar="DIR", help="shrunken copies of large pictures")
    parser.add_argument("--workers", type=int, default=usable_cores())
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=4)
    given = parser.parse_args(argv)
    if given.make:
        print(make(given.make, given.count, given.seconds), "of", given.count, "pictures")
        return 0
    copies = data.Copies(given.cache) if given.cache else None
    with data.PictureReader(given.workers, copies=copies) as reader:
        if given.fill:
            result = fill(given.fill, given.batch, reader, given.seconds)
        else:
            result = measure(given.measure, given.batch, reader, given.rounds, given.steps)
    result |= {"cache": bool(given.cache), "workers": given.workers, "cpu": cpu_name()}
    result |= {"threads": mr.threads(), "date": time.strftime("%Y-%m-%d")}
    print(json.dumps(result))
    return 0


if __name__ == "__main__":
    sys.exit(main())
