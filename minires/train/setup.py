"""From options to objects: data sets, network, optimiser and schedule of a `TrainConfig`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from .. import models, optim, random
from ..backend import resolve_device, resolve_precision
from ..data import Augment, Dataset, Loader, load_dataset, normalisation, split_validation
from ..errors import DataError
from ..kernels import memory
from .config import DEVICES, ConfigError, TrainConfig, unknown
from .finetune import parameter_groups
from .folder import Card

__all__ = [
    "Sets",
    "build_model",
    "check_images",
    "choose_device",
    "choose_precision",
    "eval_loader",
    "load_sets",
    "load_split",
    "make_model",
    "make_optimizer",
    "make_schedule",
    "pixel_stats",
    "set_threads",
    "split_sets",
]

EVAL_BATCH = 250  # images; divides the usual test sets, and fits the caches of small networks


@dataclass(frozen=True)
class Sets:
    """The data of a run: validation may be None; mean and std float32 (3,), of pixels 0-1."""

    train: Dataset
    val: Dataset | None
    test: Dataset
    mean: np.ndarray
    std: np.ndarray

    def train_loader(self, config: TrainConfig) -> Loader:
        """Shuffled and augmented batches.

        A last batch of one image is left out: BatchNorm has no variance there.
        """
        assert config.batch_size is not None
        augment = (
            Augment(crop=4, flip=config.flip, cutout=config.cutout) if config.augment else None
        )
        lonely = len(self.train) % config.batch_size == 1 and len(self.train) > 1
        return Loader(
            self.train,
            config.batch_size,
            shuffle=True,
            augment=augment,
            mean=self.mean,
            std=self.std,
            seed=config.seed,
            drop_last=lonely and config.batch_size > 1,
        )

    def eval_loader(self, dataset: Dataset) -> Loader:
        """Batches in order, without augmentation."""
        return eval_loader(dataset, self.mean, self.std)

    def card(self, config: TrainConfig) -> Card:
        """What weight files of this run say about themselves."""
        assert config.model is not None
        size = int(self.train.images.shape[1])
        mean, std = self.mean.tolist(), self.std.tolist()
        return Card(config.model, config.stem, self.train.classes, mean, std, size, config.dataset)


def eval_loader(dataset: Dataset, mean: Any, std: Any) -> Loader:
    """Normalised batches in order, without augmentation."""
    return Loader(dataset, EVAL_BATCH, mean=np.asarray(mean), std=np.asarray(std))


def pixel_stats(kind: str, dataset: str) -> tuple[np.ndarray, np.ndarray]:
    """Mean and deviation of pixels 0-1, float32 (3,): `kind` of --normalize for a data set of that
    name.
    """
    if kind == "dataset" and dataset == "shapes":  # no published values: measure them
        return normalisation(kind, load_split(dataset, None, "train", None, False))
    return normalisation(kind, dataset)


def choose_device(name: str) -> str:
    """Turn auto, cpu or cuda into a device that is there.

    Raises ConfigError with the remedy when there is no GPU.
    """
    if name not in DEVICES:
        raise unknown("--device", name, DEVICES)
    try:
        return resolve_device(name)
    except RuntimeError as error:
        raise ConfigError(f"--device {name}: {error}, or use --device cpu") from None


def choose_precision(name: str) -> str:
    """`name` if the machine has it. Raises ConfigError saying what is missing."""
    try:
        return resolve_precision(name)
    except RuntimeError as error:
        raise ConfigError(f"--precision {name}: {error}") from None


def set_threads(count: int | None) -> None:
    """Use `count` CPU threads. Raises ConfigError when there are fewer."""
    if count is None:
        return
    try:
        memory.set_threads(count)
    except ValueError as error:
        raise ConfigError(f"--threads: {error}") from None


def load_split(
    dataset: str, data: str | None, split: str, limit: int | None, download: bool
) -> Dataset:
    """One split of a data set. The folder is `data`, else $MINIRES_DATA, else `data`.

    Raises DataError or OSError when it is missing or damaged.
    """
    if split not in ("train", "test"):
        raise unknown("--split", split, ("train", "test"))
    if limit is not None and limit < 1:
        raise ConfigError(f"--limit: must be at least 1, got {limit}")
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
    where = (config.dataset, config.data)
    full = load_split(*where, "train", config.limit, config.download)
    test = load_split(*where, "test", config.limit, config.download)
    return split_sets(config, full, test)


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


def make_model(config: TrainConfig, classes: int, device: str) -> Any:
    """The network, initialised from the seed."""
    random.manual_seed(config.seed)
    return build_model(str(config.model), classes, config.stem).to(device)


def build_model(name: str, classes: int, stem: str | None) -> Any:
    """`models.build`, with ConfigError for a network or stem that there is not."""
    try:
        return models.build(name, classes, stem)
    except ValueError as error:
        raise ConfigError(f"--model: {error}") from None


def make_optimizer(config: TrainConfig, model: Any) -> Any:
    """The optimiser, with the groups of `parameter_groups`."""
    assert config.lr is not None
    assert config.weight_decay is not None
    lr, betas = config.lr, (config.momentum, 0.999)
    groups = parameter_groups(model, lr, config.weight_decay, config.lr_backbone)
    if config.optimizer == "sgd":
        nesterov = config.momentum > 0
        return optim.SGD(groups, lr, momentum=config.momentum, nesterov=nesterov)
    return (optim.Adam if config.optimizer == "adam" else optim.AdamW)(groups, lr, betas=betas)


def make_schedule(config: TrainConfig, optimizer: Any, steps: int) -> Any:
    """The learning rate by step, for a run of `steps`; call `.step()` after each update.

    onecycle: up for the share `warmup`, then down to nothing along a cosine; cosine and constant: a
    linear warm-up first; step: the same, then a tenth after half and again after three quarters of
    the steps (He et al. 2015, section 4.2).
    """
    warmup = float(config.warmup or 0.0)
    if config.schedule == "onecycle" and steps > 1:
        highest = [group["lr"] for group in optimizer.param_groups]
        return optim.OneCycleLR(optimizer, highest, steps, pct_start=warmup)
    rising = round(warmup * steps)
    after = optimizer
    if config.schedule == "cosine":
        after = optim.CosineLR(optimizer, max(1, steps - rising))
    elif config.schedule == "step":
        after = optim.MultiStepLR(optimizer, [steps // 2 - rising, steps * 3 // 4 - rising])
    return optim.WarmupLR(after, rising, 0.1 if rising else 1.0)
