"""A network as a list of ONNX nodes: plain records, made without the `onnx` package.

Maps are (n, h, w, c) in minires and (n, c, h, w) in ONNX: weights go into the files' layout (see
`layout`), axes are renumbered (see `emitters`), and nothing is transposed while the network runs.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ..errors import DataError
from ..nn import Parameter
from ..tensor import Tensor
from .layout import flattened_maps, to_file

__all__ = ["Graph", "Node", "file_array"]


@dataclass(frozen=True)
class Node:
    """One ONNX operator: names of values in and out, and its attributes."""

    kind: str
    inputs: list[str]
    output: str
    attributes: dict[str, Any]


class Graph:
    """`nodes` in order and `constants` by name, float32 or int64, of a network being walked.

    fold: put BatchNorm into the convolution before it, where there is one.
    """

    def __init__(self, model: Any, fold: bool) -> None:
        self.fold = fold
        self.nodes: list[Node] = []
        self.constants: dict[str, np.ndarray] = {}
        self.maps = flattened_maps(model)
        self._names = {id(p): name for name, p in model.named_parameters()}
        self._names |= {id(b): name for name, b in model.named_buffers()}
        self._values: dict[int, str] = {}

    def add(self, kind: str, inputs: list[str], **attributes: Any) -> str:
        """Append a node; returns the name of its output."""
        output = f"{kind.lower()}_{len(self.nodes)}"
        self.nodes.append(Node(kind, inputs, output, attributes))
        return output

    def constant(self, name: str, array: np.ndarray) -> str:
        """Keep an array under `name`, or under another where that name means something else."""
        wanted, count = name, 1
        while name in self.constants and not np.array_equal(self.constants[name], array):
            count += 1
            name = f"{wanted}_{count}"
        self.constants[name] = array
        return name

    def name_of(self, x: Any) -> str:
        """A parameter's or buffer's name in the model."""
        name = self._names.get(id(x))
        if name is None:
            raise DataError("to ONNX: a layer's weight is not among the model's parameters")
        return name

    def weight(self, x: Any) -> str:
        """A parameter or buffer as a constant in the files' layout."""
        name = self.name_of(x)
        return self.constant(name, file_array(name, x, self.maps.get(name)))

    def value(self, x: Any) -> str:
        """The name of what an operation takes: a computed map, a weight or a number."""
        if id(x) in self._values:
            return self._values[id(x)]
        if isinstance(x, Parameter) and x.ndim < 2:
            return self.weight(x)
        if isinstance(x, int | float):
            return self.constant(f"number_{x}", np.array(x, np.float32))
        raise DataError("to ONNX: an operation takes an array that is neither computed nor trained")

    def rename(self, old: str, new: str) -> None:
        """Give a node's output another name."""
        self.nodes = [
            replace(
                node,
                inputs=[new if name == old else name for name in node.inputs],
                output=new if node.output == old else node.output,
            )
            for node in self.nodes
        ]

    def known(self, x: Any, name: str) -> None:
        """Remember what a tensor is called."""
        self._values[id(x)] = name


def file_array(name: str, x: Any, flattened_from: Any = None) -> np.ndarray:
    """A weight as float32 in the files' layout."""
    array = x.numpy() if isinstance(x, Tensor) else np.asarray(x)
    return to_file(name, array.astype(np.float32, copy=False), flattened_from=flattened_from)
