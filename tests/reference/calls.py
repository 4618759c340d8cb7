"""One sample call of an op, made alike for PyTorch (the scripts) and for minires (the table).

A case is an op's name, its inputs and its keyword parameters, all in this project's layout. An
input is a shape (`values`, exact in float32), or one of `positive`, `labels`, `probabilities`; a
list of inputs is passed as one list. `running` stands for the running mean and variance of so many
channels.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from . import pure

__all__ = ["Input", "OpCase", "case", "labels", "positive", "probabilities", "upstream"]


@dataclass(frozen=True)
class Input:
    """How to make one array: `kind` is values, positive, labels, probabilities."""

    shape: tuple[int, ...]
    kind: str = "values"
    below: int = 0

    def make(self, name: str) -> np.ndarray:
        if self.kind == "labels":
            return pure.integers(name, self.shape, self.below)
        if self.kind == "probabilities":
            return pure.probabilities(name, self.shape)
        if self.kind == "positive":  # [0.5, 2.5)
            return pure.uniform(name, self.shape) + 1.5
        return pure.values(name, self.shape)

    def __str__(self) -> str:
        shape = str(self.shape).replace(" ", "")
        return shape if self.kind == "values" else f"{self.kind}{shape}"


def positive(*shape: int) -> Input:
    return Input(shape, "positive")


def labels(n: int, classes: int) -> Input:
    return Input((n,), "labels", classes)


def probabilities(n: int, classes: int) -> Input:
    return Input((n, classes), "probabilities")


@dataclass(frozen=True)
class OpCase:
    """One call. `label` describes it, `key` names it in the file and in the pure function."""

    op: str
    inputs: tuple[Any, ...]
    params: dict[str, Any] = field(default_factory=dict)

    @property
    def label(self) -> str:
        inputs = ", ".join(_text(one) for one in self.inputs)
        return inputs + "".join(f", {k}={_text(v)}" for k, v in self.params.items())

    @property
    def key(self) -> str:
        return f"{self.op}({self.label})"

    def arrays(self) -> list[Any]:
        """The float64 inputs (and int64 labels); a list input gives a list, None stays None."""
        return [_make(spec, f"{self.key}.{i}") for i, spec in enumerate(self.inputs)]

    def parameters(self) -> dict[str, Any]:
        """The keyword parameters, with float64 arrays in place of `running` and `weight`."""
        made = dict(self.params)
        if "running" in made:
            c = made["running"]
            made["running"] = (
                pure.uniform(f"{self.key}.mean", (c,)),
                pure.uniform(f"{self.key}.var", (c,)) + 1.5,
            )
        if isinstance(made.get("weight"), Input):
            made["weight"] = made["weight"].make(f"{self.key}.weight")
        return made


def upstream(case: OpCase, shape: tuple[int, ...]) -> np.ndarray:
    """The gradient that arrives at the output: exact in float32."""
    return pure.values(f"{case.key}.upstream", shape)


def _make(spec: Any, name: str) -> Any:
    if isinstance(spec, list):
        return [one.make(f"{name}.{j}") for j, one in enumerate(spec)]
    return None if spec is None else spec.make(name)


def _text(value: Any) -> str:
    if isinstance(value, list):
        return "[" + ", ".join(_text(one) for one in value) + "]"
    if isinstance(value, tuple):
        return "(" + ",".join(_text(one) for one in value) + ")"
    if isinstance(value, slice):
        return ":".join(
            "" if part is None else str(part) for part in (value.start, value.stop, value.step)
        )
    return "..." if value is Ellipsis else str(value)


def case(op: str, *inputs: Any, **params: Any) -> OpCase:
    """`inputs`: shapes, Inputs, None, or lists of shapes."""

    def read(one: Any) -> Any:
        if isinstance(one, list):
            return [read(part) for part in one]
        return Input(one) if isinstance(one, tuple) else one

    return OpCase(op, tuple(read(one) for one in inputs), params)
