"""How weights start. Each function overwrites a tensor in place and returns it.

Random ones draw with the next key of `minires.random`.

Layouts: convolution weights (r, s, c // groups, k) and linear weights (in, out), so the last two
axes are (in, out) and those before are the window. fan_in = window * in and fan_out = window * out,
as PyTorch counts them.

Sources: Glorot and Bengio, "Understanding the difficulty of training deep feedforward neural
networks", AISTATS 2010, eq. 16 (xavier); He et al., "Delving deep into rectifiers", ICCV 2015, eqs.
10 and 14 (kaiming).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from .. import functional as F
from ..backend import to_device
from ..errors import ShapeError
from ..kernels.random import normal, uniform
from ..random import next_key
from ..tensor import Tensor

__all__ = [
    "calculate_gain",
    "constant_",
    "dirac_",
    "fans",
    "kaiming_normal_",
    "kaiming_uniform_",
    "normal_",
    "ones_",
    "skip",
    "uniform_",
    "whitening_",
    "xavier_normal_",
    "xavier_uniform_",
    "zeros_",
]

GAINS = {"linear": 1.0, "sigmoid": 1.0, "tanh": 5 / 3, "relu": math.sqrt(2), "selu": 3 / 4}

LEAST_VARIANCE = 5e-4  # added to the variances that `whitening_` divides by

_skipping: ContextVar[bool] = ContextVar("skip_init", default=False)


@contextmanager
def skip() -> Iterator[None]:
    """Leave all random draws out: for weights that will be loaded, or are only counted.

    They stay zero, and untouched memory costs nothing.

    >>> from minires import nn
    >>> with skip():
    ...     layer = nn.Linear(10**4, 10**4)  # 400 MB, never touched
    >>> layer.weight.size
    100000000
    """
    token = _skipping.set(True)
    try:
        yield
    finally:
        _skipping.reset(token)


def fans(shape: tuple[int, ...]) -> tuple[int, int]:
    """(fan_in, fan_out) of a weight.

    >>> fans((3, 3, 16, 32))
    (144, 288)
    """
    if len(shape) < 2:
        raise ShapeError(f"init: fans need a weight of 2 or more axes (…, in, out), got {shape}")
    window = math.prod(shape[:-2])
    return window * shape[-2], window * shape[-1]


def calculate_gain(nonlinearity: str, a: float = 0.0) -> float:
    """What keeps the variance through a nonlinearity; `a` is leaky_relu's negative slope."""
    if nonlinearity == "leaky_relu":
        return math.sqrt(2 / (1 + a**2))
    if nonlinearity not in GAINS:
        known = ", ".join(["leaky_relu", *GAINS])
        raise ValueError(f"init: nonlinearity is {nonlinearity!r} but must be one of {known}")
    return GAINS[nonlinearity]


def constant_(t: Tensor, value: float) -> Tensor:
    """Fill with `value`."""
    return t.assign(value)


def zeros_(t: Tensor) -> Tensor:
    """Fill with 0."""
    return t.assign(0.0)


def ones_(t: Tensor) -> Tensor:
    """Fill with 1."""
    return t.assign(1.0)


def normal_(t: Tensor, mean: float = 0.0, std: float = 1.0) -> Tensor:
    """Normal numbers."""
    return _draw(t, normal, mean, std)


def uniform_(t: Tensor, low: float = 0.0, high: float = 1.0) -> Tensor:
    """Numbers in [low, high)."""
    return _draw(t, uniform, low, high - low)


def xavier_normal_(t: Tensor, gain: float = 1.0) -> Tensor:
    """Normal with std = gain * sqrt(2 / (fan_in + fan_out))."""
    return normal_(t, 0.0, gain * math.sqrt(2 / sum(fans(t.shape))))


def xavier_uniform_(t: Tensor, gain: float = 1.0) -> Tensor:
    """Uniform with the std of `xavier_normal_`."""
    bound = gain * math.sqrt(6 / sum(fans(t.shape)))
    return uniform_(t, -bound, bound)


def kaiming_normal_(
    t: Tensor, a: float = 0.0, mode: str = "fan_in", nonlinearity: str = "leaky_relu"
) -> Tensor:
    """Normal with std = gain / sqrt(fan): fan_in keeps the variance forwards, fan_out backwards."""
    return normal_(t, 0.0, calculate_gain(nonlinearity, a) / math.sqrt(_fan(t, mode)))


def kaiming_uniform_(
    t: Tensor, a: float = 0.0, mode: str = "fan_in", nonlinearity: str = "leaky_relu"
) -> Tensor:
    """Uniform with the std of `kaiming_normal_`."""
    bound = calculate_gain(nonlinearity, a) * math.sqrt(3 / _fan(t, mode))
    return uniform_(t, -bound, bound)


def dirac_(w: Tensor, groups: int = 1) -> Tensor:
    """Make a convolution (r, s, c // groups, k) pass its first channels on; other outputs are 0."""
    if w.ndim != 4 or w.shape[3] % groups:
        raise ShapeError(
            f"dirac_: expected (r, s, c // groups, k), k a multiple of {groups}, got {w.shape}"
        )
    r, s, c, k = w.shape
    value = np.zeros(w.shape, w.dtype)
    for group in range(groups):
        for i in range(min(c, k // groups)):
            value[r // 2, s // 2, i, group * (k // groups) + i] = 1
    return w.assign(to_device(value, w.device))


def whitening_(w: Tensor, images: Any) -> Tensor:
    """Start a first convolution (r, s, c, k) by images (n, h, w, c), normalised as for training.

    Its first filters are the eigenvectors of the second moments of r x s patches, largest first,
    each over the root of its eigenvalue; as many more are their negatives, so that a ReLU loses
    nothing. That is r s c pairs, or k // 2 if those are fewer; the other filters stay.

    Source: Page, "How to train your ResNet 8", 2019; the negatives are those of Jordan 2024,
    arXiv:2404.00498.
    """
    r, s, c, k = w.shape
    images = to_device(images, "cpu")
    n, h, wide, channels = images.shape if images.ndim == 4 else (0,) * 4
    if n == 0 or channels != c or h < r or wide < s:
        raise ShapeError(
            f"whitening_: images are {images.shape} but must be (n, h, w, {c}), {r}x{s} or larger"
        )
    moments = sum(_moments(image.astype(np.float64), r, s) for image in images) / n
    variances, vectors = np.linalg.eigh(moments)
    filters = (vectors / np.sqrt(variances + LEAST_VARIANCE))[:, ::-1]
    pairs = min(r * s * c, k // 2)
    value = to_device(w.array, "cpu").copy()
    value[..., :pairs] = filters[:, :pairs].reshape(r, s, c, pairs)
    value[..., pairs : 2 * pairs] = -value[..., :pairs]
    return w.assign(to_device(value, w.device))


def _moments(image: np.ndarray, r: int, s: int) -> np.ndarray:
    """Mean products (r s c, r s c) of the values of all r x s patches of an image (h, w, c)."""
    patches = sliding_window_view(image, (r, s), axis=(0, 1)).transpose(0, 1, 3, 4, 2)
    patches = patches.reshape(-1, r * s * image.shape[2])
    return F.linear(patches.T, patches).numpy() / len(patches)


def _fan(t: Tensor, mode: str) -> int:
    if mode not in ("fan_in", "fan_out"):
        raise ValueError(f"init: mode is {mode!r} but must be fan_in or fan_out")
    return fans(t.shape)[mode == "fan_out"]


def _draw(t: Tensor, draw: Callable[..., Any], shift: float, scale: float) -> Tensor:
    if _skipping.get():
        return t
    numbers = draw(next_key(), t.shape, t.dtype)
    numbers *= scale
    numbers += shift
    return t.assign(to_device(numbers, t.device))
