"""Small picture files for the tests of folders."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

__all__ = ["gradient", "make_folder", "noisy"]


def gradient(width: int, height: int) -> Image.Image:
    """RGB: red grows to the right, green downwards, blue is 128."""
    y, x = np.mgrid[:height, :width]
    red, green = x * 255 // max(width - 1, 1), y * 255 // max(height - 1, 1)
    return Image.fromarray(np.stack([red, green, np.full_like(red, 128)], axis=2).astype(np.uint8))


def noisy(width: int, height: int, seed: int) -> Image.Image:
    """Random pixels, different for each seed."""
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3))
    return Image.fromarray(pixels.astype(np.uint8))


def make_folder(root: Path, classes: str = "ab", count: int = 6, damaged: str = "") -> Path:
    """`count` noisy pictures in a folder for each letter of `classes`, in three formats.

    `damaged` names files, "a/01.png b/02.webp", of which only the first 40 bytes are kept.
    """
    for k, name in enumerate(classes):
        (root / name).mkdir(parents=True)
        for i in range(count):
            picture = noisy(20 + 3 * i, 40 - 2 * i, 100 * k + i)
            picture.save(root / name / f"{i:02}.{('jpg', 'png', 'webp')[i % 3]}")
    for file in damaged.split():
        (root / file).write_bytes((root / file).read_bytes()[:40])
    return root
