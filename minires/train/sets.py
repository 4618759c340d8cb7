"""The data of a run: training, validation and test images, and their batches."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from .. import ahead
from ..data import (
    Augment,
    Copies,
    Dataset,
    Loader,
    PictureAugment,
    PictureLoader,
    PictureReader,
    Pictures,
    copies_folder,
    default_data_dir,
    load_dataset,
    normalisation,
    picture_folders,
    split_validation,
)
from ..data.workers import usable_cores
from ..errors import DataError
from .config import ConfigError, TrainConfig, unknown
from .folder import Card

__all__ = [
    "PictureSets",
    "Sets",
    "check_images",
    "class_weights",
    "eval_loader",
    "load_sets",
    "load_split",
    "make_reader",
    "pixel_stats",
    "split_sets",
]

EVAL_BATCH = 250  # images; divides the usual test sets, and fits the caches of small networks
EVAL_PICTURES = 32  # the same for pictures from files, which are larger


@dataclass(frozen=True)
class Sets:
    """The data of a run: validation may be None; mean and std float32 (3,), of pixels 0-1."""

    train: Any
    val: Any
    test: Any
    mean: np.ndarray
    std: np.ndarray
    reader: PictureReader | None = None  # of files; it has worker processes to be closed

    @property
    def size(self) -> int:
        """The side of an image, pixels."""
        return int(self.train.images.shape[1])

    def train_loader(self, config: TrainConfig) -> Loader | PictureLoader:
        """Shuffled and augmented batches.

        A last batch of one image is left out: BatchNorm has no variance there.
        """
        assert config.batch_size is not None
        assert config.crop is not None
        how = {"reflect": config.reflect, "alternate": config.alternate_flip}
        augment = Augment(config.crop, config.flip, config.cutout, **how)
        lonely = len(self.train) % config.batch_size == 1 and len(self.train) > 1
        return Loader(
            self.train,
            config.batch_size,
            shuffle=True,
            augment=augment if config.augment else None,
            mean=self.mean,
            std=self.std,
            seed=config.seed,
            drop_last=lonely and config.batch_size > 1,
        )

    def eval_loader(self, dataset: Dataset | Pictures) -> Loader | PictureLoader:
        """Batches in order, without augmentation."""
        return eval_loader(dataset, self.mean, self.std, self.size, self.reader)

    def normalised(self, count: int) -> np.ndarray:
        """The first `count` training images as the network sees them, without augmentation."""
        return np.concatenate([x for x, _ in self.eval_loader(self.train[:count])])

    def card(self, config: TrainConfig) -> Card:
        """What weight files of this run say about themselves."""
        assert config.model is not None
        known = self.train.classes, self.mean.tolist(), self.std.tolist(), self.size
        return Card(config.model, config.stem, *known, config.dataset)

    @property
    def skipped(self) -> dict[str, str]:
        """The pictures that could not be read so far, and why."""
        return {} if self.reader is None else self.reader.skipped

    def news(self) -> Iterator[str]:
        """What to tell the user about the pictures' copies, each line once."""
        return iter(()) if self.reader is None else self.reader.news()

    def cpu_seconds(self) -> tuple[float, float]:
        """CPU time of decoding pictures, and of everything, so far."""
        here = time.process_time() + ahead.cpu_seconds()
        if self.reader is None:
            return 0.0, here
        elsewhere = self.reader.seconds if self.reader.workers else 0.0
        return self.reader.seconds, here + elsewhere

    def decode_share(self, before: tuple[float, float]) -> dict[str, float]:
        """What decoding took of the CPU time since `before`, for timing.jsonl; {} without files."""
        if self.reader is None:
            return {}
        decoding, total = (b - a for a, b in zip(before, self.cpu_seconds()))
        return {"decode_cpu_share": round(decoding / total, 4)}

    def close(self) -> None:
        """End the worker processes, if there are any."""
        if self.reader is not None:
            self.reader.close()


@dataclass(frozen=True)
class PictureSets(Sets):
    """The same of picture files, which become squares of `side` pixels as they are read."""

    side: int = 224

    @property
    def size(self) -> int:
        """The side of an image, pixels."""
        return self.side

    def train_loader(self, config: TrainConfig) -> PictureLoader:
        """Shuffled and augmented batches; a picture that cannot be read is replaced.

        A last batch of one image is left out: BatchNorm has no variance there.
        """
        assert config.batch_size is not None
        augment = PictureAugment(config.crop_area, config.flip, config.color_jitter)
        return PictureLoader(
            self.train,
            config.batch_size,
            size=self.side,
            shuffle=True,
            augment=augment if config.augment else None,
            mean=self.mean,
            std=self.std,
            seed=config.seed,
            drop_last=len(self.train) % config.batch_size == 1 < config.batch_size,
            stand_ins=True,
            reader=self.reader,
        )


def eval_loader(
    dataset: Dataset | Pictures, mean: Any, std: Any, size: int, reader: PictureReader | None = None
) -> Loader | PictureLoader:
    """Normalised batches in order, without augmentation; `size` and `reader` are for files."""
    stats: dict[str, Any] = {"mean": np.asarray(mean), "std": np.asarray(std)}
    if isinstance(dataset, Pictures):
        return PictureLoader(dataset, EVAL_PICTURES, size=size, reader=reader, **stats)
    return Loader(dataset, EVAL_BATCH, **stats)


def make_reader(config: TrainConfig, fill: bool = True) -> PictureReader:
    """What decodes the pictures of a run; with `fill` it may make copies of them, else it only
    reads those that there are.
    """
    workers = config.workers
    if workers is None:
        workers = usable_cores() if os.name == "posix" else 0
    return PictureReader(
        workers,
        max_pixels=round(1e6 * config.max_megapixels),
        on_bad=config.on_bad_picture,
        copies=_copies(config, fill),
    )


def _copies(config: TrainConfig, fill: bool) -> Copies | None:
    folder = config.cache_pictures or copies_folder()
    if folder in (None, "none"):
        return None
    return Copies(folder, round(1e9 * config.cache_gb), fill)


def class_weights(config: TrainConfig, sets: Sets) -> np.ndarray | None:
    """What each class counts in the loss, float32 (k,), or None where all count the same.

    balanced: n / (k · images of the class), so that all classes together count as much.
    """
    if config.class_weights == "none":
        return None
    labels, classes = sets.train.labels, len(sets.train.classes)
    counts = np.bincount(labels, minlength=classes)
    return (len(labels) / (classes * np.maximum(counts, 1))).astype(np.float32)


def pixel_stats(kind: str, dataset: str) -> tuple[np.ndarray, np.ndarray]:
    """Mean and deviation of pixels 0-1, float32 (3,): `kind` of --normalize for a data set of that
    name.
    """
    if kind == "dataset" and dataset == "shapes":  # no published values: measure them
        return normalisation(kind, load_split(dataset, None, "train", None, False))
    return normalisation(kind, dataset)


def load_split(
    dataset: str,
    data: str | None,
    split: str,
    limit: int | None,
    download: bool,
    config: TrainConfig | None = None,
) -> Any:
    """One split of a data set. The folder is `data`, else $MINIRES_DATA, else `data`.

    `config` tells how a folder of pictures was split in training. Raises DataError or OSError when
    it is missing or damaged.
    """
    splits = ("train", "val", "test") if dataset == "folder" else ("train", "test")
    if split not in splits:
        raise unknown("--split", split, splits)
    if limit is not None and limit < 1:
        raise ConfigError(f"--limit: must be at least 1, got {limit}")
    if dataset == "folder":
        return _folders(config or TrainConfig(), data)[split].spread(limit)
    loaded = load_dataset(dataset, data, split, limit=limit, download=download)
    check_images(loaded)
    return loaded


def check_images(dataset: Any) -> None:
    """Raise DataError for an empty set, or naming an image with NaN or infinity in it."""
    if len(dataset.images) == 0:
        raise DataError(f"{dataset.name}: no images")
    if dataset.images.dtype.kind != "f":
        return
    whole = np.isfinite(dataset.images.reshape(len(dataset.images), -1)).all(axis=1)
    if not whole.all():
        raise DataError(f"{dataset.name}: image {int(whole.argmin())} contains NaN or infinity")


def load_sets(config: TrainConfig) -> Sets:
    """Training, validation and test images, and what to normalise them with.

    The validation split is taken from the training images by the seed; the test set is never a part
    of any choice.
    """
    if config.dataset == "folder":
        return _picture_sets(config)
    where = (config.dataset, config.data)
    full = load_split(*where, "train", config.limit, config.download)
    test = load_split(*where, "test", config.limit, config.download)
    return split_sets(config, full, test)


def _folders(config: TrainConfig, data: str | None) -> dict[str, Pictures]:
    shares = {"val_fraction": config.val_fraction, "test_fraction": config.test_fraction}
    return picture_folders(data or default_data_dir(), seed=config.seed, **shares)


def _picture_sets(config: TrainConfig) -> PictureSets:
    found = _folders(config, config.data)
    parts = {name: pictures.spread(config.limit) for name, pictures in found.items()}
    if not len(parts["test"]):
        share = f"--test-fraction {config.test_fraction}"
        raise ConfigError(f"{share}: leaves no test pictures, and there is no folder test/")
    val = parts["val"] if len(parts["val"]) else None
    if val is None and config.early_stopping is not None:
        raise ConfigError("--early-stopping: needs validation pictures, but there are none")
    stats, reader = normalisation(config.normalize, "folder"), make_reader(config)
    return PictureSets(parts["train"], val, parts["test"], *stats, reader, config.image_size)


def split_sets(config: TrainConfig, full: Dataset, test: Dataset) -> Sets:
    """The same from data sets at hand."""
    check_images(full)
    check_images(test)
    count = round(len(full) * config.val_fraction)
    if config.val_fraction and not count:
        raise ConfigError(
            f"--val-fraction: {config.val_fraction} of {len(full)} images is none; give 0 or more"
        )
    train, val = split_validation(full, count, config.seed) if count else (full, None)
    if len(train) < 2:
        raise ConfigError(f"training needs at least 2 images, got {len(train)}")
    return Sets(train, val, test, *normalisation(config.normalize, full))
