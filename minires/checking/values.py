"""Values on their way into a check and out of it.

What is made float64 and what is passed as it is, and what a gradient must look like.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np

from ..tensor import Tensor
from .report import GradcheckError

__all__ = [
    "ARRAYS",
    "Variable",
    "as_gradient",
    "copy64",
    "in_float64",
    "named",
    "real_outputs",
    "unchanged",
]

ARRAYS = (Tensor, np.ndarray)


class Variable(NamedTuple):
    """Something differentiated: its name in messages and its value, a float64 array."""

    name: str
    value: np.ndarray


def copy64(x: Any) -> np.ndarray:
    """A C-contiguous float64 copy."""
    return np.array(x, np.float64, order="C")


def in_float64(x: Any) -> Any:
    """Real numbers and arrays as float64 arrays; anything else as it is."""
    if isinstance(x, list | tuple) and any(isinstance(item, ARRAYS) for item in x):
        return [in_float64(item) for item in x]
    if isinstance(x, Tensor):
        return copy64(x.numpy()) if x.dtype.kind == "f" else x
    if isinstance(x, bool | int | str | bytes) or x is None:
        return x
    if isinstance(x, float | list | tuple | np.ndarray | np.generic):
        a = np.asarray(x)
        if a.dtype.kind == "c":
            raise GradcheckError(f"inputs are {a.dtype}, but only real numbers are differentiated")
        return copy64(a) if a.dtype.kind == "f" else x
    return x


def named(source: Any) -> Iterable[tuple[str, Tensor]]:
    """(name, tensor) pairs of a module, a dict, a tensor, or an iterable of tensors or pairs."""
    if hasattr(source, "named_parameters"):
        return list(source.named_parameters())
    items = source.items() if isinstance(source, dict) else source
    items = [source] if isinstance(source, Tensor) else items
    pairs = [(str(i), x) if isinstance(x, Tensor) else x for i, x in enumerate(items)]
    for pair in pairs:
        if not (isinstance(pair, tuple) and len(pair) == 2 and isinstance(pair[1], Tensor)):
            raise GradcheckError(f"params holds {type(pair).__name__} where a Tensor was expected")
    return pairs


def unchanged(
    now: list[np.ndarray], before: Sequence[np.ndarray], who: str, variables: list[Variable]
) -> None:
    """Raise when `who` wrote into one of its arguments."""
    for a, b, v in zip(now, before, variables):
        if not np.array_equal(a, b, equal_nan=True):
            raise GradcheckError(f"{who} wrote into {v.name}; it must leave its arguments alone")


def real_outputs(outputs: list[np.ndarray]) -> list[np.ndarray]:
    """The outputs that can be differentiated; an error if none can, or one is not float64."""
    real = [y for y in outputs if y.dtype.kind not in "iub"]
    for i, y in enumerate(real):
        if y.dtype != np.float64:
            raise GradcheckError(
                f"output {i} is {y.dtype} though every input is float64: it was cast on the way"
            )
    if not real:
        raise GradcheckError("the function returned no real-valued output to differentiate")
    return real


def as_gradient(g: Any, variable: Variable) -> np.ndarray:
    """A gradient as a float64 array of the variable's shape; None means zero."""
    name, value = variable
    if g is None:
        return np.zeros(value.shape)
    g = np.asarray(g)
    if g.shape != value.shape:
        hint = ""
        if g.ndim >= value.ndim and _broadcasts(value.shape, g.shape):
            hint = ": it was broadcast in the forward pass, so sum over the axes that were added"
        elif sorted(g.shape) == sorted(value.shape):
            hint = ": transposed?"
        raise GradcheckError(
            f"the gradient of {name} has shape {g.shape}, expected {value.shape}{hint}"
        )
    if g.dtype != np.float64:
        raise GradcheckError(
            f"the gradient of {name} is {g.dtype}, expected float64 like the input: half of the "
            "digits are lost"
        )
    return np.array(g)


def _broadcasts(small: tuple[int, ...], large: tuple[int, ...]) -> bool:
    try:
        return np.broadcast_shapes(small, large) == large
    except ValueError:
        return False
