"""Data sets, augmentation and the prefetching loader."""

from .cifar import cifar10, cifar100
from .dataset import Dataset, limit, only_classes, split_validation
from .download import download
from .loader import Loader
from .registry import dataset_names, default_data_dir, load_dataset
from .shapes import shapes
from .transforms import CLASS_STATS, NORMALISATIONS, Augment, normalisation, normalise

__all__ = [
    "CLASS_STATS",
    "NORMALISATIONS",
    "Augment",
    "Dataset",
    "Loader",
    "cifar10",
    "cifar100",
    "dataset_names",
    "default_data_dir",
    "download",
    "limit",
    "load_dataset",
    "normalisation",
    "normalise",
    "only_classes",
    "shapes",
    "split_validation",
]
