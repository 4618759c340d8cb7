"""Sample inputs of an op or a kernel, from which the tests are generated.

A `Case` lists one input per array argument and the keyword parameters of one call. An input is a
shape (standard normal numbers), a factory such as `labels(n, k)`, a number, `None` for an absent
argument, or a list of inputs. The op registry and the kernel registry keep the cases; `tests/`
turns each into a gradient check, a twin comparison and a dtype check.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

__all__ = [
    "Case",
    "away_from",
    "distinct",
    "labels",
    "permuted_view",
    "positive",
    "probabilities",
    "uint8_images",
]

Factory = Callable[[np.random.Generator, Any], np.ndarray]


class Case:
    """One sample call: `Case((2, 5, 5, 3), (3, 3, 3, 4), stride=2)`.

    `wrt` names the positions that are differentiated; by default every floating-point input.
    """

    def __init__(self, *inputs: Any, wrt: Sequence[int] | None = None, **params: Any) -> None:
        self.inputs, self.wrt, self.params = inputs, wrt, params

    def arrays(self, rng: np.random.Generator, dtype: Any = np.float64) -> list[Any]:
        """The inputs as arrays (or None, or lists of arrays), drawn from `rng`."""
        return [_make(spec, rng, np.dtype(dtype)) for spec in self.inputs]

    def __repr__(self) -> str:
        inputs = ", ".join(getattr(spec, "__name__", str(spec)) for spec in self.inputs)
        params = "".join(f", {name}={value}" for name, value in self.params.items())
        return f"{inputs}{params}".replace(" ", "")


def _make(spec: Any, rng: np.random.Generator, dtype: np.dtype) -> Any:
    if spec is None or isinstance(spec, int | float):
        return spec
    if isinstance(spec, list):
        return [_make(item, rng, dtype) for item in spec]
    if callable(spec):
        return spec(rng, dtype)
    return rng.standard_normal(spec).astype(dtype)


def _named(name: str, make: Factory) -> Factory:
    make.__name__ = name
    return make


def labels(n: int, classes: int) -> Factory:
    """Class indices (n,) in 0 … classes - 1."""
    return _named(f"labels({n},{classes})", lambda rng, dtype: rng.integers(0, classes, n))


def positive(*shape: int) -> Factory:
    """Numbers in [0.5, 2), for log, sqrt and divisors."""
    return _named(f"positive{shape}", lambda rng, dtype: rng.uniform(0.5, 2, shape).astype(dtype))


def probabilities(n: int, classes: int) -> Factory:
    """Rows (n, classes) that are positive and sum to one."""

    def make(rng: np.random.Generator, dtype: Any) -> np.ndarray:
        p = rng.uniform(0.1, 1, (n, classes))
        return (p / p.sum(axis=1, keepdims=True)).astype(dtype)

    return _named(f"probabilities({n},{classes})", make)


def away_from(kink: float, *shape: int) -> Factory:
    """Numbers at least 0.1 away from `kink`, where the function has a corner."""

    def make(rng: np.random.Generator, dtype: Any) -> np.ndarray:
        x = rng.standard_normal(shape)
        return (kink + x + np.where(x < 0, -0.1, 0.1)).astype(dtype)

    return _named(f"away_from({kink},{shape})", make)


def distinct(*shape: int) -> Factory:
    """A shuffled ladder of numbers 0.1 apart: no ties and no near-ties, for max and pooling."""

    def make(rng: np.random.Generator, dtype: Any) -> np.ndarray:
        size = int(np.prod(shape))
        return (0.1 * (rng.permutation(size) - size / 2 + 0.5)).reshape(shape).astype(dtype)

    return _named(f"distinct{shape}", make)


def permuted_view(*shape: int) -> Factory:
    """A non-contiguous array: a transposed view with every second row skipped."""

    def make(rng: np.random.Generator, dtype: Any) -> np.ndarray:
        stored = (2 * shape[-1], *shape[-2::-1])
        return rng.standard_normal(stored).astype(dtype)[::2].transpose(range(len(shape))[::-1])

    return _named(f"permuted_view{shape}", make)


def uint8_images(*shape: int) -> Factory:
    """Random bytes, as pixels."""
    return _named(f"uint8_images{shape}", lambda rng, dtype: rng.integers(0, 256, shape, np.uint8))
