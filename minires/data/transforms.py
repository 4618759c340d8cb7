"""Normalisation constants and settings of the augmentation; `kernels/augment.py` does the work."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from ..errors import DataError, DTypeError, ShapeError
from ..kernels.augment import gather_batch, pixel_table
from .dataset import Dataset

__all__ = ["CLASS_STATS", "NORMALISATIONS", "Augment", "normalisation", "normalise"]

NORMALISATIONS = ("dataset", "imagenet", "half", "none")

# Mean and standard deviation of each channel over the training images, white being 1.
CLASS_STATS: dict[str, tuple[tuple[float, float, float], tuple[float, float, float]]] = {
    "cifar10": ((0.49139968, 0.48215841, 0.44653091), (0.24703223, 0.24348513, 0.26158784)),
    "cifar100": ((0.50707516, 0.48654887, 0.44091784), (0.26733429, 0.25643846, 0.27615047)),
    "imagenet": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
}
CLASS_STATS["folder"] = CLASS_STATS["imagenet"]  # photographs of any kind; nothing to measure first


@dataclass(frozen=True)
class Augment:
    """Random crops after padding by `crop` pixels, black or (`reflect`) the image mirrored, random
    flips, and a square of side `cutout` set to the mean.

    `alternate`: a first epoch flips half of the images, and every other the half that the one
    before it left.

    The default is the usual one for CIFAR (He et al. 2015, section 4.2). Raises ValueError for a
    negative size.

    >>> Augment(cutout=8)
    Augment(crop=4, flip=True, cutout=8, reflect=False, alternate=False)
    """

    crop: int = 4
    flip: bool = True
    cutout: int = 0
    reflect: bool = False
    alternate: bool = False

    def __post_init__(self) -> None:
        for name in ("crop", "cutout"):
            if getattr(self, name) < 0:
                raise ValueError(
                    f"Augment: {name} is {getattr(self, name)} but must be at least 0 pixels"
                )

    def __bool__(self) -> bool:
        return bool(self.crop or self.flip or self.cutout or self.alternate)


def normalisation(
    kind: str, dataset: Dataset | np.ndarray | str | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation, float32 (c,), in units where black is 0 and white is 1.

    `kind` is "dataset" (published values for CIFAR, else measured on the training images given),
    "imagenet", "half" (0.5 and 0.5) or "none" (0 and 1). `dataset` is a `Dataset`, images uint8
    (n, h, w, c) or the name of a set with published values.

    >>> mean, std = normalisation("dataset", "cifar10")
    >>> mean.round(4).tolist() == np.float32([0.4914, 0.4822, 0.4465]).tolist()
    True
    """
    if kind not in NORMALISATIONS:
        raise ValueError(
            f"normalisation: kind is {kind!r} but must be one of {', '.join(NORMALISATIONS)}"
        )
    if kind == "dataset":
        mean, std = _dataset_stats(dataset)
    elif kind == "imagenet":
        mean, std = CLASS_STATS["imagenet"]
    else:
        images = dataset.images if isinstance(dataset, Dataset) else dataset
        channels = images.shape[-1] if isinstance(images, np.ndarray) else 3
        mean, std = (
            ([0.5] * channels, [0.5] * channels)
            if kind == "half"
            else ([0] * channels, [1] * channels)
        )
    return np.array(mean, np.float32), np.array(std, np.float32)


def _dataset_stats(dataset: Dataset | np.ndarray | str | None) -> tuple[Any, Any]:
    name = dataset.name if isinstance(dataset, Dataset) else dataset
    if isinstance(name, str) and name in CLASS_STATS:
        return CLASS_STATS[name]
    images = dataset.images if isinstance(dataset, Dataset) else dataset
    if not isinstance(images, np.ndarray):
        raise ValueError(
            f"normalisation: 'dataset' needs a data set or its images, got {dataset!r}"
        )
    if images.dtype != np.uint8 or images.ndim != 4:
        raise DTypeError(
            f"normalisation: images must be uint8 (n, h, w, c), got {images.dtype} {images.shape}"
        )
    if not images.size:
        raise DataError(
            "normalisation: there are no images to take the mean and standard deviation of"
        )
    # exact: the histogram of the bytes holds every sum
    counts = np.stack(
        [np.bincount(images[..., k].ravel(), minlength=256) for k in range(images.shape[3])]
    )
    weights, values = counts / counts.sum(axis=1, keepdims=True), np.arange(256) / 255
    mean = weights @ values
    std = np.sqrt((weights * (values - mean[:, None]) ** 2).sum(axis=1))
    return mean, np.where(std > 0, std, 1)  # a constant channel: only centred


def normalise(images: np.ndarray, mean: Any, std: Any, dtype: Any = np.float32) -> np.ndarray:
    """Images uint8 (n, h, w, c) as the network sees them: (pixel / 255 - mean) / std.

    >>> normalise(np.full((1, 2, 2, 3), 255, np.uint8), [0.5] * 3, [0.5] * 3)[0, 0, 0]
    array([1., 1., 1.], dtype=float32)
    """
    if images.dtype != np.uint8:
        raise DTypeError(f"normalise: images must be uint8 (0 to 255), got {images.dtype}")
    if images.ndim != 4 or np.shape(mean) != images.shape[3:] or np.shape(std) != images.shape[3:]:
        raise ShapeError(
            f"normalise: images must be (n, h, w, c) with mean and std (c,), "
            f"got {images.shape}, {np.shape(mean)}, {np.shape(std)}"
        )
    return gather_batch(images, np.arange(len(images)), pixel_table(mean, std, dtype))
