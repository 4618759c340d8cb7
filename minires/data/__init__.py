"""Data sets, augmentation and the prefetching loader."""

from .cifar import cifar10, cifar100
from .copies import Copies, copies_folder
from .dataset import Dataset, limit, only_classes, split_validation
from .download import download
from .loader import Loader
from .picture_loader import PictureAugment, PictureLoader
from .picture_reader import PictureReader
from .pictures import Pictures, picture_folder, picture_folders
from .prefetch import prefetch
from .registry import dataset_names, default_data_dir, load_dataset
from .shapes import shapes
from .transforms import CLASS_STATS, NORMALISATIONS, Augment, normalisation, normalise

__all__ = [
    "CLASS_STATS",
    "NORMALISATIONS",
    "Augment",
    "Copies",
    "Dataset",
    "Loader",
    "PictureAugment",
    "PictureLoader",
    "PictureReader",
    "Pictures",
    "cifar10",
    "cifar100",
    "copies_folder",
    "dataset_names",
    "default_data_dir",
    "download",
    "limit",
    "load_dataset",
    "normalisation",
    "normalise",
    "only_classes",
    "picture_folder",
    "picture_folders",
    "prefetch",
    "shapes",
    "split_validation",
]
