"""Inputs and weights as a pure function of a tensor's name and an element's index: nothing to
store.

    element(name, i) = splitmix64((crc32(name) << 32) + i), its top 24 bits read as one in [-1, 1)

Arrays are filled in C order of this project's memory layout: images (n, h, w, c), convolution
weights (r, s, c, k), linear weights (in, out). Only exact arithmetic is used (24-bit integers, one
product, one correctly rounded square root), so every machine gets the same bits, and `values` are
exact in float32 too. Needs numpy alone: the scripts that run PyTorch and the tests that run without
it import the same file.

splitmix64: Steele, Lea, Flood, "Fast splittable pseudorandom number generators", OOPSLA 2014.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Mapping, Sequence

import numpy as np

__all__ = [
    "bits",
    "images",
    "integers",
    "parameter",
    "probabilities",
    "relative_rms",
    "sketch",
    "state",
    "uniform",
    "values",
]

SKETCH = 64  # buckets of a sketch; arrays of at most 96 elements are kept as they are
KEPT = 96


def bits(name: str, count: int) -> np.ndarray:
    """(count,) uint64: the random bits of the elements 0 … count - 1 of the tensor `name`."""
    z = np.arange(count, dtype=np.uint64)
    z += np.uint64(zlib.crc32(name.encode()) << 32)
    z *= np.uint64(0x9E3779B97F4A7C15)  # arrays wrap around silently
    z ^= z >> np.uint64(30)
    z *= np.uint64(0xBF58476D1CE4E5B9)
    z ^= z >> np.uint64(27)
    z *= np.uint64(0x94D049BB133111EB)
    z ^= z >> np.uint64(31)
    return z


def uniform(name: str, shape: Sequence[int]) -> np.ndarray:
    """float64 multiples of 2^-23 in [-1, 1): variance 1/3."""
    u = (bits(name, math.prod(shape)) >> np.uint64(40)).astype(np.float64)
    u *= 2.0**-23
    u -= 1.0
    return u.reshape(shape)


def values(name: str, shape: Sequence[int]) -> np.ndarray:
    """float64 in [-2, 2), exact in float32: the inputs and upstream gradients of the op cases."""
    return np.asarray(2 * uniform(name, shape))


def integers(name: str, shape: Sequence[int], below: int) -> np.ndarray:
    """int64 in 0 … below - 1."""
    return (bits(name, math.prod(shape)) % np.uint64(below)).astype(np.int64).reshape(shape)


def probabilities(name: str, shape: Sequence[int]) -> np.ndarray:
    """Positive float64 rows that sum to one."""
    p = uniform(name, shape) + 1.125
    return p / p.sum(axis=-1, keepdims=True)


def images(name: str, count: int, size: int, channels: int = 3) -> np.ndarray:
    """(count, size, size, channels) float64 in [-2, 2)."""
    return values(name, (count, size, size, channels))


def parameter(name: str, shape: Sequence[int]) -> np.ndarray:
    """The float64 value of a model's parameter or buffer, by its name's last part and its rank.

    Weights of rank 4 and 2 have He's variance, 2 over the fan-in (for linear ones 1 over it); a
    normalisation's weight lies in [0.75, 1.25), its running variance in [0.5, 1.5), biases and
    running means in [-0.25, 0.25).
    """
    last = name.rsplit(".", 1)[-1]
    if last == "num_batches_tracked":
        return np.zeros(shape, np.int64)
    u = uniform(name, shape)
    if last == "running_var":
        return 1 + 0.5 * u
    if last == "weight" and len(shape) > 1:
        fan_in = math.prod(shape[:-1])
        return math.sqrt((6 if len(shape) == 4 else 3) / fan_in) * u
    return 1 + 0.25 * u if last == "weight" else 0.25 * u


def state(shapes: Mapping[str, Sequence[int]]) -> dict[str, np.ndarray]:
    """A whole model's `parameter` values from {name: shape in memory layout}."""
    return {name: parameter(name, shape) for name, shape in shapes.items()}


def sketch(a: np.ndarray, buckets: int = SKETCH, kept: int = KEPT) -> np.ndarray:
    """At most `kept` numbers that stand for `a`: itself when small, else sums with random signs.

    Every element enters one of the buckets with the sign that its index decides (Charikar, Chen,
    Farach-Colton, "Finding frequent items in data streams", 2002), so that the sketch of a
    difference has, in expectation, the difference's norm: an error in any element shows.
    """
    flat = np.asarray(a, np.float64).reshape(-1)
    if flat.size <= kept:
        return flat
    z = bits("sketch", flat.size)
    signs = np.where(z >> np.uint64(63), 1.0, -1.0)
    return np.bincount((z % np.uint64(buckets)).astype(np.int64), flat * signs, buckets)


def relative_rms(a: np.ndarray, b: np.ndarray) -> float:
    """Root mean squared difference over that of the reference `b` (the difference where b is 0)."""
    scale = float(np.sqrt(np.mean(np.square(b)))) or 1.0
    error = float(np.sqrt(np.mean(np.square(np.asarray(a, np.float64) - b))))
    return error / scale
