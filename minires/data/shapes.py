"""`shapes`: ten kinds of figures, drawn on the spot, so that a first run needs no download.

Each 32x32 picture shows one figure, turned, scaled, moved and coloured at random, on a background
of a gradient, stripes and clutter, with a scratch across and noise over everything. Only the form
tells the class: no pixel and no colour does, so a linear classifier fails and a small
convolutional network succeeds.

A figure is a signed distance function d(x, y), negative inside, in units of its own radius.
Distance makes smooth edges free: a pixel whose centre is d pixels from the edge is covered by
about 1/2 - d. Every picture is a pure function of (seed, index).

Source of the distances: Inigo Quilez, "2D distance functions",
https://iquilezles.org/articles/distfunctions2d/
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

from ..kernels.random import Key, bits, uniform
from .dataset import Dataset

__all__ = ["DISTANCES", "SIZES", "shapes"]

SIZE = 32  # pixels a side
SIZES = {"train": 8000, "test": 2000}  # pictures by default
STREAMS = {"train": 0xDA7A_0010, "test": 0xDA7A_0020}  # random streams; the next one is the noise's
CHUNK = 500  # pictures drawn at a time, which also names the draw: one picture never depends on n
DRAWS = 64  # random numbers a picture may use, beside its noise

Distance = Callable[[np.ndarray, np.ndarray], np.ndarray]


def _disc(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return np.hypot(x, y) - 0.9


def _ring(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return np.abs(np.hypot(x, y) - 0.78) - 0.2


def _crescent(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return np.maximum(np.hypot(x, y) - 1, 0.8 - np.hypot(x - 0.55, y))


def _heart(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    x, y = np.abs(x) * 0.6, 0.6 * y + 0.55  # its tip at the origin, two arcs above
    diagonal = 0.5 * np.maximum(x + y, 0)
    lower = np.minimum(np.hypot(x, y - 1), np.hypot(x - diagonal, y - diagonal)) * np.sign(x - y)
    arc = np.hypot(x - 0.25, y - 0.75) - np.sqrt(2) / 4
    return np.where(x + y > 1, arc, lower) / 0.6


def _square(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return np.maximum(np.abs(x), np.abs(y)) - 0.8


def _cross(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    short, long = np.minimum(np.abs(x), np.abs(y)), np.maximum(np.abs(x), np.abs(y))
    return np.maximum(short - 0.32, long - 0.98)


def _polygon(*corners: tuple[float, float]) -> Distance:
    """The distance to a polygon: to the nearest edge, negative after an odd number of crossings."""

    def distance(x: np.ndarray, y: np.ndarray) -> np.ndarray:
        nearest, inside = np.full_like(x, np.inf), np.zeros(x.shape, bool)
        for (ax, ay), (bx, by) in zip(corners, (*corners[1:], corners[0])):
            ex, ey, px, py = bx - ax, by - ay, x - ax, y - ay
            along = np.clip((px * ex + py * ey) / (ex * ex + ey * ey), 0, 1)
            nearest = np.minimum(nearest, (px - along * ex) ** 2 + (py - along * ey) ** 2)
            if ay != by:
                inside ^= ((py < 0) != (y < by)) & (px < py * (ex / ey))
        return np.where(inside, -1, 1) * np.sqrt(nearest)

    return distance


def _round(points: int, *radii: float) -> Distance:
    """A polygon with `points` corners round the centre, the first one up, their radii in turn."""
    turns = [2 * np.pi * i / points for i in range(points)]
    reach = [radii[i % len(radii)] for i in range(points)]
    return _polygon(*((r * np.sin(t), r * np.cos(t)) for r, t in zip(reach, turns)))


DISTANCES: dict[str, Distance] = {
    "circle": _disc,
    "triangle": _round(3, 1.1),
    "square": _square,
    "star": _round(10, 1.15, 0.48),
    "cross": _cross,
    "ring": _ring,
    "crescent": _crescent,
    "heart": _heart,
    "arrow": _polygon(
        (1.1, 0), (0.1, 0.9), (0.1, 0.32), (-1, 0.32), (-1, -0.32), (0.1, -0.32), (0.1, -0.9)
    ),
    "hourglass": _polygon(
        (0.8, 0.95), (0.18, 0), (0.8, -0.95), (-0.8, -0.95), (-0.18, 0), (-0.8, 0.95)
    ),
}
CLASSES = tuple(DISTANCES)


def shapes(split: str = "train", n: int | None = None, seed: int = 0) -> Dataset:
    """`n` pictures (by default 8,000 for "train", 2,000 for "test"), the classes in turn.

    The two splits draw from different random streams. Raises ValueError for another split or n < 1.

    >>> shapes("test", n=20)
    Dataset shapes: 20 images 32x32x3, 10 classes
    """
    if split not in SIZES:
        raise ValueError(f"shapes: split is {split!r} but must be 'train' or 'test'")
    n = SIZES[split] if n is None else n
    if n < 1:
        raise ValueError(f"shapes: n is {n} but must be at least 1")
    labels = np.arange(n) % len(CLASSES)
    images = np.empty((n, SIZE, SIZE, 3), np.uint8)
    for first in range(0, n, CHUNK):
        part = slice(first, first + CHUNK)
        images[part] = _draw(labels[part], seed, STREAMS[split], first // CHUNK)
    return Dataset(images, labels, CLASSES, "shapes")


class _Draws:
    """Random columns (m, 1) for m pictures, one after another from a table of uniform numbers."""

    def __init__(self, table: np.ndarray) -> None:
        self._columns: Iterator[np.ndarray] = iter(table.T[:, :, None])

    def between(self, low: float, high: float) -> np.ndarray:
        return np.float32(low) + np.float32(high - low) * next(self._columns)

    def sign(self) -> np.ndarray:
        return np.where(next(self._columns) < 0.5, np.float32(-1), np.float32(1))

    def colour(self) -> np.ndarray:
        return np.stack([next(self._columns) for _ in range(3)], axis=1)  # (m, 3, 1)


def _draw(labels: np.ndarray, seed: int, stream: int, chunk: int) -> np.ndarray:
    """The pictures uint8 (m, 32, 32, 3) of one chunk."""
    m, pixels = len(labels), SIZE * SIZE
    draws = _Draws(uniform(Key(seed, stream, chunk), (m, DRAWS)))
    y, x = np.indices((SIZE, SIZE), np.float32).reshape(2, pixels) - np.float32((SIZE - 1) / 2)

    ground, image = _background(draws, x, y)  # (m, 3, 1), (m, 3, pixels)
    for _ in range(3):
        _blend(image, _scratch(draws, x, y), draws.colour())
    # in every channel at least 0.3 from the ground, going round from 1 to 0: visible, unpredictable
    paint = (ground + np.stack([draws.between(0.3, 0.7) for _ in range(3)], axis=1)) % np.float32(1)
    _blend(image, _figure(draws, labels, x, y), paint)
    _blend(image, _scratch(draws, x, y), draws.colour())

    strength = draws.between(4, 20)[:, None]  # of 255: half the width of the noise
    noise = bits(Key(seed, stream + 1, chunk), m * 3 * pixels // 4).view(np.uint8)
    image *= 255
    image += (noise.reshape(m, 3, pixels).astype(np.float32) / 127.5 - 1) * strength
    np.clip(np.rint(image, out=image), 0, 255, out=image)
    return image.astype(np.uint8).reshape(m, 3, SIZE, SIZE).transpose(0, 2, 3, 1)


def _background(draws: _Draws, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A ground colour, and the picture of it under a gradient and stripes."""
    ground = draws.colour()
    angle, slope = draws.between(0, 2 * np.pi), draws.between(0, 0.15)
    gradient = (np.cos(angle) * x + np.sin(angle) * y) * (slope / (SIZE / 2))
    angle, waves, phase = (
        draws.between(0, np.pi),
        draws.between(0.2, 1.6),
        draws.between(0, 2 * np.pi),
    )
    stripes = np.sin((np.cos(angle) * x + np.sin(angle) * y) * waves + phase) * draws.between(
        0, 0.12
    )
    return ground, ground + (gradient + stripes)[:, None]


def _figure(draws: _Draws, labels: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """How much of each pixel (m, pixels) the figure of each label covers."""
    radius = draws.between(8, 11.5)
    room = SIZE / 2 - 1 - radius
    x = x - room * draws.between(-1, 1)
    y = y - room * draws.between(-1, 1)
    angle, mirror = draws.between(-0.5, 0.5), draws.sign()
    c, s = np.cos(angle) / radius, np.sin(angle) / radius
    x, y = (c * x + s * y) * mirror, s * x - c * y  # rows count downwards
    d = np.empty_like(x)
    for label in np.unique(labels):
        chosen = labels == label
        d[chosen] = DISTANCES[CLASSES[label]](x[chosen], y[chosen])
    return np.clip(0.5 - d * radius, 0, 1)


def _scratch(draws: _Draws, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """How much of each pixel (m, pixels) a short thick line somewhere covers."""
    x, y = x - draws.between(-16, 16), y - draws.between(-16, 16)
    angle, length = draws.between(0, np.pi), draws.between(0, 8)
    c, s = np.cos(angle), np.sin(angle)
    beyond = np.maximum(np.abs(c * x + s * y) - length / 2, 0)
    return np.clip(0.5 + draws.between(0.5, 1.2) - np.hypot(beyond, c * y - s * x), 0, 1)


def _blend(image: np.ndarray, cover: np.ndarray, colour: np.ndarray) -> None:
    """Paint `colour` (m, 3, 1) over `image` (m, 3, pixels), in place, by `cover` (m, pixels)."""
    image += cover[:, None] * (colour - image)
