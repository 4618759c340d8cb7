"""From stored bytes to a normalised batch: gather, crop, flip, cut out, in one pass.

A byte has only 256 values, so normalisation is a look-up in a small table: no arithmetic a pixel,
and the reference and its twin agree to the last bit. The twins are serial and release the GIL:
they run in the loader's threads, beside the training step.

An image's draws are the four words of one Philox block, numbered by its index in the data set:
they depend on (seed, stream, step, index), not on the batch it is in nor on who computes it.
"""

from __future__ import annotations

from typing import Any

import numba
import numpy as np

from .cases import Case, labels, uint8_images
from .dispatch import array_module, kernel
from .launch import MOST_ROWS, THREADS, Source, from_memory
from .memory import empty
from .random import philox, random_bits

__all__ = ["augment_batch", "gather_batch", "pixel_table"]

SOURCE = Source("augment.cu")
EACH = 16  # numbers a GPU thread


def pixel_table(mean: Any, std: Any, dtype: Any = np.float32) -> np.ndarray:
    """The normalised value of every byte (256, c): (byte / 255 - mean) / std, rounded once.

    >>> pixel_table([0.5], [0.5])[[0, 255], 0]
    array([-1.,  1.], dtype=float32)
    """
    byte = np.arange(256, dtype=np.float64)[:, None] / 255
    return ((byte - np.asarray(mean, np.float64)) / np.asarray(std, np.float64)).astype(dtype)


def _table(c: int) -> Any:
    """A case input: the table (256, c) of some normalisation."""

    def make(rng: np.random.Generator, dtype: Any) -> np.ndarray:
        return pixel_table(rng.uniform(0.4, 0.6, c), rng.uniform(0.2, 0.3, c), dtype)

    make.__name__ = f"table({c})"
    return make


def _fits(images: Any, indices: Any, table: Any, **_: Any) -> bool:
    return images.flags.c_contiguous and indices.dtype == np.int64 and table.flags.c_contiguous


def _check(name: str, images: Any, indices: Any, table: Any) -> None:
    """The twins read memory unchecked, so nothing wrong may get past here."""
    _check_shapes(name, images, table)
    if indices.size and not 0 <= int(indices.min()) <= int(indices.max()) < len(images):
        wrong = int(indices.min()) if int(indices.min()) < 0 else int(indices.max())
        raise IndexError(f"{name}: index {wrong} must be 0 to {len(images) - 1}")


def _check_shapes(name: str, images: Any, table: Any) -> None:
    if images.dtype != np.uint8 or images.ndim != 4:
        raise ValueError(
            f"{name}: images must be uint8 (n, h, w, c), got {images.dtype} {images.shape}"
        )
    if table.shape != (256, images.shape[3]):
        raise ValueError(
            f"{name}: table must be (256, {images.shape[3]}) as images are {images.shape}, "
            f"got {table.shape}"
        )


@kernel(
    Case(uint8_images(5, 4, 6, 3), labels(7, 5), _table(3)),
    Case(uint8_images(2, 1, 1, 1), labels(1, 2), _table(1)),
)
def gather_batch(images: Any, indices: Any, table: Any) -> Any:
    """The batch (b, h, w, c): images uint8 (n, h, w, c) at indices (b,) through table (256, c)."""
    _check("gather_batch", images, indices, table)
    c = images.shape[3]
    return table[images[indices], array_module(images).arange(c)]


@gather_batch.cpu(serves=_fits)
def _gather_batch_cpu(images: np.ndarray, indices: np.ndarray, table: np.ndarray) -> np.ndarray:
    _check("gather_batch", images, indices, table)
    y = empty((len(indices), *images.shape[1:]), table.dtype)
    _gather(images, indices, table, y)
    return y


@numba.njit(cache=True, nogil=True)
def _gather(images, indices, table, y):
    for i in range(len(indices)):
        image = images[indices[i]]
        for row in range(image.shape[0]):
            for column in range(image.shape[1]):
                for channel in range(image.shape[2]):
                    y[i, row, column, channel] = table[image[row, column, channel], channel]


def _check_reflection(images: Any, pad: int, reflect: bool) -> None:
    if reflect and pad >= min(images.shape[1:3]):
        raise ValueError(
            f"augment_batch: pad is {pad} but must be below the sides of images {images.shape}"
        )


@kernel(
    Case(uint8_images(9, 8, 8, 3), labels(7, 9), _table(3), pad=2, flip=True, cutout=3, seed=5),
    Case(
        uint8_images(3, 5, 9, 1),
        labels(4, 3),
        _table(1),
        pad=4,
        seed=2**40 + 1,
        stream=3,
        step=2**33,
    ),
    Case(uint8_images(3, 5, 4, 2), labels(5, 3), _table(2), flip=True, cutout=12, seed=1, step=9),
    Case(uint8_images(4, 6, 6, 3), labels(1, 4), _table(3), cutout=4, seed=8),
    Case(uint8_images(4, 6, 5, 3), labels(6, 4), _table(3), pad=2, reflect=True, seed=9),
    Case(uint8_images(4, 3, 2, 1), labels(6, 4), _table(1), alternate=True, seed=3, step=7),
)
def augment_batch(
    images: Any,
    indices: Any,
    table: Any,
    *,
    pad: int = 0,
    reflect: bool = False,
    flip: bool = False,
    alternate: bool = False,
    cutout: int = 0,
    seed: int,
    stream: int = 0,
    step: int = 0,
) -> Any:
    """Like `gather_batch`, each image cropped, flipped and cut out by its own draws.

    `pad`: put `pad` pixels around, black (0) or, with `reflect`, the image mirrored at its
    outermost pixels (pad is below h and w then), and cut a window (h, w) at random.
    `flip`: mirror left to right, with probability 1/2.
    `alternate`: mirror half of the images at even steps, by their draws of step 0, and the other
    half at odd ones (Jordan 2024, arXiv:2404.00498).
    `cutout`: set a square of that side, centred on a random pixel and clipped at the border, to the
    mean, which is 0 once normalised (DeVries and Taylor 2017, arXiv:1708.04552).
    """
    _check("augment_batch", images, indices, table)
    _check_reflection(images, pad, reflect)
    xp = array_module(images)
    n, h, w, c = images.shape
    words = random_bits(xp.empty(4 * n, np.uint32), seed=seed, stream=stream, step=step)
    words = words.reshape(n, 4)[indices].astype(np.uint64)  # (b, 4): the block of each image
    top, left = _below(words[:, 0], 2 * pad + 1), _below(words[:, 1], 2 * pad + 1)
    mirrored = (words[:, 2] >> np.uint64(31) == 1) & flip
    if alternate:
        first = random_bits(xp.empty(4 * n, np.uint32), seed=seed, stream=stream, step=0)
        mirrored = (first.reshape(n, 4)[indices, 2] >> np.uint32(31) == 1) ^ (step % 2 == 1)
    y, x = _below(words[:, 2] << np.uint64(1) & np.uint64(2**32 - 1), h), _below(words[:, 3], w)

    window_rows, window_columns = xp.arange(h), xp.arange(w)
    rows = top[:, None] + window_rows  # (b, h)
    columns = left[:, None] + xp.where(
        mirrored[:, None], window_columns[::-1], window_columns
    )  # (b, w)
    around = ((0, 0), (pad, pad), (pad, pad), (0, 0))
    padded = xp.pad(images[indices], around, mode="reflect" if reflect else "constant")
    batch = xp.arange(len(indices))[:, None, None]
    cropped = padded[batch, rows[:, :, None], columns[:, None, :]]  # (b, h, w, c)

    near_rows = _within(window_rows - y[:, None], cutout)  # (b, h)
    near_columns = _within(window_columns - x[:, None], cutout)  # (b, w)
    hole = near_rows[:, :, None] & near_columns[:, None, :]
    return xp.where(hole[..., None], table.dtype.type(0), table[cropped, xp.arange(c)])


def _below(words: Any, bound: int) -> Any:
    """32-bit words to integers 0 … bound - 1: the upper half of word x bound."""
    return ((words * np.uint64(bound)) >> np.uint64(32)).astype(np.int64)


def _within(offset: Any, side: int) -> Any:
    """Whether an offset from the centre lies in a segment of that length."""
    return (offset >= -(side // 2)) & (offset < side - side // 2)


@augment_batch.cpu(serves=_fits)
def _augment_batch_cpu(
    images: np.ndarray,
    indices: np.ndarray,
    table: np.ndarray,
    *,
    pad: int = 0,
    reflect: bool = False,
    flip: bool = False,
    alternate: bool = False,
    cutout: int = 0,
    seed: int,
    stream: int = 0,
    step: int = 0,
) -> np.ndarray:
    _check("augment_batch", images, indices, table)
    _check_reflection(images, pad, reflect)
    y = empty((len(indices), *images.shape[1:]), table.dtype)
    key = np.uint64(seed), np.uint64(stream), np.uint64(step)
    _augment(images, indices, table, pad, reflect, flip, alternate, cutout, key, y)
    return y


@numba.njit(cache=True, nogil=True)
def _augment(images, indices, table, pad, reflect, flip, alternate, cutout, key, y):
    h, w, c = images.shape[1:]
    seed, stream, step = key
    for i in range(len(indices)):
        image, out = images[indices[i]], y[i]
        w0, w1, w2, w3 = philox(seed, stream, step, indices[i])
        top, left = _scaled(w0, 2 * pad + 1) - pad, _scaled(w1, 2 * pad + 1) - pad
        mirrored = flip and w2 >> np.uint64(31) == np.uint64(1)
        if alternate:
            first = philox(seed, stream, np.uint64(0), indices[i])[2] >> np.uint64(31)
            mirrored = first != (step & np.uint64(1))
        for row in range(h):
            source_row = _mirror(top + row, h) if reflect else top + row
            for column in range(w):
                source_column = left + (w - 1 - column if mirrored else column)
                if reflect:
                    source_column = _mirror(source_column, w)
                if 0 <= source_row < h and 0 <= source_column < w:
                    for channel in range(c):
                        out[row, column, channel] = table[
                            image[source_row, source_column, channel], channel
                        ]
                else:
                    for channel in range(c):
                        out[row, column, channel] = table[0, channel]
        if cutout > 0:
            first_row = _scaled(w2 << np.uint64(1) & np.uint64(2**32 - 1), h) - cutout // 2
            first_column = _scaled(w3, w) - cutout // 2
            for row in range(max(first_row, 0), min(first_row + cutout, h)):
                for column in range(max(first_column, 0), min(first_column + cutout, w)):
                    for channel in range(c):
                        out[row, column, channel] = 0


@numba.njit(cache=True)
def _mirror(at, size):
    """Where a coordinate outside 0 … size - 1 lies once mirrored at the outermost pixels."""
    if at < 0:
        return -at
    return at if at < size else 2 * (size - 1) - at


@numba.njit(cache=True)
def _scaled(word, bound):
    return np.int64((word * np.uint64(bound)) >> np.uint64(32))


def _fits_gpu(images: Any, indices: Any, table: Any, **_: Any) -> bool:
    small = images.size // max(1, len(images)) <= MOST_ROWS // 2 and table.dtype.char in "fd"
    return _fits(images, indices, table) and small and indices.flags.c_contiguous


def _launch(images: Any, indices: Any, table: Any, *draws: Any) -> Any:
    """The batch; an image whose index is out of range is NaN: seeing it here would have to wait."""
    n, h, w, c = images.shape
    y = empty((len(indices), h, w, c), table.dtype, like=images)
    grid = len(indices), -(-h * w * c // (THREADS * EACH))
    SOURCE.launch(
        *("augment", grid, (THREADS,), images, indices, table, y, n, h, w, c, EACH, *draws)
    )
    return y


@gather_batch.cuda(serves=_fits_gpu)
def _gather_batch_cuda(images: Any, indices: Any, table: Any) -> Any:
    _check_shapes("gather_batch", images, table)
    return _launch(images, indices, table, 0, 0, 0, 0, 0, 0, 0, 0, None, 0)


@augment_batch.cuda(serves=_fits_gpu)
def _augment_batch_cuda(
    images: Any,
    indices: Any,
    table: Any,
    *,
    pad: int = 0,
    reflect: bool = False,
    flip: bool = False,
    alternate: bool = False,
    cutout: int = 0,
    seed: int,
    stream: int = 0,
    step: Any = 0,
) -> Any:
    _check_shapes("augment_batch", images, table)
    _check_reflection(images, pad, reflect)
    how = pad, bool(reflect), bool(flip), bool(alternate), cutout
    draws = (1, *how, seed, stream, *from_memory(step))
    return _launch(images, indices, table, *draws)
