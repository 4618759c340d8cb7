"""What a picture is wanted for, and which part of it: tasks, and random crops.

Plain Python: worker processes import this, and no NumPy. A crop is a pure function of (seed,
stream, epoch, index).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NamedTuple

__all__ = [
    "Box",
    "Limits",
    "Outcome",
    "Task",
    "central_box",
    "centre_share",
    "crop_box",
    "philox",
    "uniforms",
]

RATIOS = (3 / 4, 4 / 3)  # width / height of random crops
ATTEMPTS = 10  # at a random crop that fits, before a central one

Box = tuple[float, float, float, float]  # left, top, right, bottom


class Limits(NamedTuple):
    """What holds for every picture: the most pixels, the folder of shrunken copies or None, and
    since when (Unix time) a copy must have been used to count as used.
    """

    max_pixels: int
    cache: str | None = None
    since: float = 0.0


class Task(NamedTuple):
    """One picture wanted: the first of `files` that can be read, as (size, size) RGB.

    `draw` is (seed, stream, epoch, index) for a random crop of at least `area` of the picture,
    mirrored by chance if `flip`, its colours changed by up to the share `jitter`; None for the
    central square whose side is the share `centre` of the shorter side. keep: whether to write the
    shrunken copy, where there is none yet.
    """

    slot: int
    files: list[str]
    size: int
    draw: tuple[int, int, int, int] | None = None
    area: float = 0.08
    flip: bool = False
    jitter: float = 0.0
    centre: float = 0.875
    keep: bool = False


class Outcome(NamedTuple):
    """Why the first files of a task could not be read; if `done`, the picture is of the next one.

    `seconds`: CPU time that this process has taken so far. copied: bytes of the copy that was
    written, or minus the error number if it could not be.
    """

    slot: int
    reasons: list[str]
    done: bool
    seconds: float
    copied: int = 0


# Random numbers


def philox(seed: int, stream: int, step: int, block: int) -> tuple[int, int, int, int]:
    """Philox 4x32-10 as in `kernels/random.py`, with Python's integers."""
    mask = 0xFFFFFFFF
    c0, c1, c2, c3 = block & mask, stream & mask, step & mask, step >> 32 & mask
    k0, k1 = seed & mask, seed >> 32 & mask
    for _ in range(10):
        p0, p1 = c0 * 0xD2511F53, c2 * 0xCD9E8D57
        c0, c1 = (p1 >> 32) ^ c1 ^ k0, p1 & mask
        c2, c3 = (p0 >> 32) ^ c3 ^ k1, p0 & mask
        k0, k1 = (k0 + 0x9E3779B9) & mask, (k1 + 0xBB67AE85) & mask
    return c0, c1, c2, c3


def uniforms(draw: tuple[int, int, int, int]) -> Iterator[float]:
    """Numbers in [0, 1) of one picture: 64 of them before the next index's begin."""
    seed, stream, epoch, index = draw
    for block in range(16 * index, 16 * index + 16):
        for word in philox(seed, stream, epoch, block):
            yield word * 2.0**-32


def crop_box(width: int, height: int, area: float, numbers: Iterator[float]) -> Box:
    """A random crop of `area` to 1 of a picture, 3:4 to 4:3, as torchvision's RandomResizedCrop.

    Source: Szegedy et al. 2015, arXiv:1409.4842, section 6; the central crop of the nearest ratio
    after ten that do not fit is torchvision's.
    """
    low, high = math.log(RATIOS[0]), math.log(RATIOS[1])
    for _ in range(ATTEMPTS):
        wanted = width * height * (area + (1 - area) * next(numbers))
        ratio = math.exp(low + (high - low) * next(numbers))
        w, h = round(math.sqrt(wanted * ratio)), round(math.sqrt(wanted / ratio))
        if 0 < w <= width and 0 < h <= height:
            left, top = int(next(numbers) * (width - w + 1)), int(next(numbers) * (height - h + 1))
            return left, top, left + w, top + h
    ratio = min(max(width / height, RATIOS[0]), RATIOS[1])
    w, h = min(width, round(height * ratio)), min(height, round(width / ratio))
    left, top = (width - w) // 2, (height - h) // 2
    return left, top, left + w, top + h


def centre_share(size: int) -> float:
    """How much of the shorter side is looked at when measuring, for inputs of that size.

    7/8 as in the evaluation of ImageNet's networks; small ones see all, as their data sets do.
    """
    return 0.875 if size > 64 else 1.0


def central_box(width: int, height: int, share: float) -> Box:
    """The square in the middle whose side is that share of the shorter one."""
    side = share * min(width, height)
    left, top = (width - side) / 2, (height - side) / 2
    return left, top, left + side, top + side
