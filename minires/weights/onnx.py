"""ONNX files, by the `onnx` package: input (batch, channels, h, w) as PyTorch's exporter has it.

The package is imported when a file is written and not before: `pip install -e '.[onnx]'`.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Mapping
from typing import Any

import numpy as np

from .. import nn
from ..autograd import enable_grad
from ..errors import DataError
from ..functional.conv import pair
from ..op import listen
from ..tensor import Tensor
from ..version import __version__
from .emitters import EMITTERS
from .files import atomic_write
from .graph import Graph

__all__ = ["OPSET", "save_onnx", "trace"]

OPSET = 28  # of onnx 1.23; ONNX Runtime 1.32 runs it
LOWEST = 15  # BatchNormalization as it is now
INPUT, OUTPUT = "input", "logits"


def save_onnx(
    model: Any,
    path: str | os.PathLike[str],
    *,
    size: int | tuple[int, int],
    fold: bool = False,
    opset: int | None = None,
    metadata: Mapping[str, str] | None = None,
) -> None:
    """Write `model` in evaluation mode as an ONNX network from images of `size` pixels (a side, or
    height and width) to logits, whole or not at all.

    "input" is float32 (batch, channels, h, w), "logits" (batch, classes), the batch of any size.
    Weights have their names in weight files. fold: put each BatchNorm that follows a convolution
    into it, so that the network is smaller and faster and its convolutions' weights differ from the
    model's. opset: the version of the operators, 15 or newer; the newest that the installed package
    knows, at most OPSET, unless given. metadata: text by name. Equal models give equal files.

    Raises ImportError without the package, DataError for an operation that has no counterpart here,
    and when the place cannot be written to.
    """
    onnx = _package()
    newest = onnx.defs.onnx_opset_version()
    opset = min(OPSET, newest) if opset is None else opset
    if not LOWEST <= opset <= newest:
        raise ValueError(f"save_onnx: opset is {opset} but must be {LOWEST} to {newest}")
    h, w = pair("save_onnx", "size", size)
    first = next((m for m in model.modules() if isinstance(m, nn.Conv2d)), None)
    if first is None:
        raise DataError("to ONNX: the network has no convolution")
    c = first.in_channels
    graph, outputs = trace(model, np.zeros((1, h, w, c), first.weight.dtype), fold)
    shapes = {INPUT: ["batch", c, h, w], OUTPUT: ["batch", outputs]}
    made = _assemble(onnx, graph, shapes, type(model).__name__, opset)
    onnx.helper.set_model_props(made, dict(sorted((metadata or {}).items())))
    onnx.checker.check_model(made, full_check=True)
    with atomic_write(path) as file:
        file.write(made.SerializeToString(deterministic=True))


def trace(model: Any, x: np.ndarray, fold: bool) -> tuple[Graph, int]:
    """The graph of `model(x)`, x (n, h, w, c), in evaluation mode, and its number of outputs, from
    listening to the operations of one forward pass.

    The model keeps its mode. Raises DataError for an operation that `emitters` lacks.
    """
    graph, image = Graph(model, fold), Tensor(x)
    graph.known(image, INPUT)
    steps: list[tuple[str, tuple[Any, ...], dict[str, Any], Tensor]] = []
    modes = [(module, module.training) for module in model.modules()]
    try:
        model.eval()
        with enable_grad(), listen(lambda *step: steps.append(step)):  # without, layers are fused
            logits = model(image)
    finally:
        for module, training in modes:
            module.training = training
    for name, inputs, params, y in steps:
        emit = EMITTERS.get(name)
        if emit is None:
            known = ", ".join(sorted(EMITTERS))
            raise DataError(f"to ONNX: the network uses {name}; there are {known}")
        try:
            emit(graph, y, *inputs, **params)
        except TypeError as error:  # a parameter that the emitter does not have
            raise DataError(f"to ONNX: {name}: {error}") from None
    graph.rename(graph.value(logits), OUTPUT)
    return graph, logits.shape[1]


def _package() -> Any:
    try:
        return importlib.import_module("onnx")
    except ImportError as error:
        reason = f"writing ONNX needs the package onnx ({error})"
        raise ImportError(f"{reason}: pip install -e '.[onnx]'") from None


def _assemble(
    onnx: Any, graph: Graph, shapes: Mapping[str, list[Any]], name: str, opset: int
) -> Any:
    """The graph as onnx's ModelProto."""
    helper = onnx.helper
    nodes = [
        helper.make_node(n.kind, n.inputs, [n.output], name=n.output, **n.attributes)
        for n in graph.nodes
    ]
    constants = [onnx.numpy_helper.from_array(a, n) for n, a in graph.constants.items()]
    given, gives = (
        helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shape)
        for name, shape in shapes.items()
    )
    imports = [helper.make_opsetid("", opset)]
    return helper.make_model(
        helper.make_graph(nodes, name, [given], [gives], constants),
        opset_imports=imports,
        ir_version=helper.find_min_ir_version_for(imports),
        producer_name="minires",
        producer_version=__version__,
    )
