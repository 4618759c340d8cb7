"""Fixtures: folders with the real images of CIFAR-10, for the tests that want them."""

from __future__ import annotations

import io
import os
from pathlib import Path

import numpy as np
import pytest

from minires.data.cifar import find_layout
from minires.errors import DataError

__all__ = ["real_cifar10", "real_cifar10_all"]

CLASSES = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]
BATCH = 10_000


def _unpacked(split: str) -> Path | None:
    """The folder that MINIRES_DATA names, if it holds CIFAR-10."""
    named = os.environ.get("MINIRES_DATA")
    if named:
        try:
            return find_layout("cifar10", named, split)[0]
        except DataError:
            pass
    return None


def _unpack(source: Path, folder: Path, names: list[str]) -> Path:
    """Turn lossless strips of 500 images into official binary batches."""
    from PIL import Image

    folder.mkdir(exist_ok=True)
    for name in names:
        records = np.empty((BATCH, 3073), np.uint8)
        records[:, 0] = np.fromfile(source / f"{name}.labels", np.uint8)
        packed, start = (source / f"{name}.strips").open("rb"), 0
        with packed:
            while head := packed.read(8):
                strip = io.BytesIO(packed.read(int.from_bytes(head, "little")))
                images = np.asarray(Image.open(strip).convert("RGB")).reshape(-1, 32, 32, 3)
                planes = images.transpose(0, 3, 1, 2).reshape(len(images), -1)
                records[start : start + len(images), 1:] = planes
                start += len(images)
        records.tofile(folder / f"{name}.bin")
    (folder / "batches.meta.txt").write_text("\n".join(CLASSES) + "\n")
    return folder


@pytest.fixture(scope="session")
def real_cifar10(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the real test images of CIFAR-10 (and perhaps the training images)."""
    folder = _unpacked("test")
    if folder:
        return folder
    source = request.getfixturevalue("shared") / "data" / "cifar10"
    return _unpack(
        source, tmp_path_factory.mktemp("cifar") / "cifar-10-batches-bin", ["test_batch"]
    )


@pytest.fixture(scope="session")
def real_cifar10_all(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """A folder with all 60,000 real images of CIFAR-10."""
    folder = _unpacked("train")
    if folder:
        return folder
    source = request.getfixturevalue("shared") / "data" / "cifar10"
    names = [f"data_batch_{i}" for i in range(1, 6)] + ["test_batch"]
    return _unpack(source, tmp_path_factory.mktemp("cifar-all") / "cifar-10-batches-bin", names)
