"""What each operation becomes in ONNX: emitters with the operations' names and signatures.

An emitter gets the graph, the operation's output, then what the operation got. The operators'
definitions: https://onnx.ai/onnx/operators.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ..errors import DataError
from ..functional.conv import pair
from ..functional.norm import fold
from ..tensor import Tensor
from .graph import Graph, file_array

__all__ = ["EMITTERS"]

AXES = {4: (0, 2, 3, 1), 2: (0, 1)}  # where an axis of ours is in ONNX
INT64_MAX = 2**63 - 1
UNARY = {"relu": "Relu", "sigmoid": "Sigmoid", "tanh": "Tanh"}
BINARY = {"add": "Add", "sub": "Sub", "mul": "Mul", "div": "Div"}
EMITTERS: dict[str, Callable[..., None]] = {}


def emits(*names: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Make a function the emitter of the operations `names`."""

    def register(emit: Callable[..., None]) -> Callable[..., None]:
        EMITTERS.update(dict.fromkeys(names, emit))
        return emit

    return register


# Convolution and BatchNorm


def window(
    w: Any, stride: Any = 1, padding: Any = 0, dilation: Any = 1, groups: int = 1
) -> dict[str, Any]:
    """The attributes of a Conv."""
    return {
        "kernel_shape": list(w.shape[:2]),
        "strides": list(pair("conv", "stride", stride)),
        "pads": list(pair("conv", "padding", padding, least=0)) * 2,
        "dilations": list(pair("conv", "dilation", dilation)),
        "group": groups,
    }


@emits("conv2d")
def _conv2d(g: Graph, y: Tensor, x: Any, w: Any, b: Any = None, **geometry: Any) -> None:
    inputs = [g.value(x), g.weight(w), *([] if b is None else [g.weight(b)])]
    g.known(y, g.add("Conv", inputs, **window(w, **geometry)))


@emits("conv_norm")
def _conv_norm(
    g: Graph,
    y: Tensor,
    x: Any,
    w: Any,
    gamma: Any,
    beta: Any,
    residual: Any = None,
    *,
    running: Any,
    relu: bool = False,
    training: bool = False,
    eps: float = 1e-5,
    moving: Any = None,
    **geometry: Any,
) -> None:
    if g.fold:
        name = g.name_of(w)
        folded, bias = fold(w.array, None, gamma.array, beta.array, running=running, eps=eps)
        array = file_array(name, folded)
        shift = file_array(name, bias)
        names = g.constant(name, array), g.constant(f"{name.rpartition('.')[0]}.bias", shift)
        out = g.add("Conv", [g.value(x), *names], **window(w, **geometry))
    else:
        z = g.add("Conv", [g.value(x), g.weight(w)], **window(w, **geometry))
        out = g.add("BatchNormalization", [z, *_norm(g, gamma, beta, running)], epsilon=eps)
    if residual is not None:
        out = g.add("Add", [out, g.value(residual)])
    g.known(y, g.add("Relu", [out]) if relu else out)


def _norm(g: Graph, gamma: Any, beta: Any, running: Any) -> list[str]:
    if running is None:
        raise DataError("to ONNX: a BatchNorm without running statistics")
    count, name = running[0].size, g.name_of(running[0]).rpartition(".")[0]
    plain = (np.ones(count, np.float32), np.zeros(count, np.float32))
    return [
        g.constant(f"{name}.weight", plain[0]) if gamma is None else g.weight(gamma),
        g.constant(f"{name}.bias", plain[1]) if beta is None else g.weight(beta),
        *(g.weight(v) for v in running),
    ]


@emits("batch_norm")
def _batch_norm(
    g: Graph,
    y: Tensor,
    x: Any,
    gamma: Any = None,
    beta: Any = None,
    *,
    running: Any,
    training: bool = False,
    eps: float = 1e-5,
    moving: Any = None,
) -> None:
    inputs = [g.value(x), *_norm(g, gamma, beta, running)]
    g.known(y, g.add("BatchNormalization", inputs, epsilon=eps))


@emits("linear")
def _linear(g: Graph, y: Tensor, x: Any, w: Any, b: Any = None) -> None:
    if x.ndim != 2:
        raise DataError(f"to ONNX: linear of x with {x.ndim} axes")
    inputs = [g.value(x), g.weight(w), *([] if b is None else [g.weight(b)])]
    g.known(y, g.add("Gemm", inputs, transB=1))


# Shapes


@emits("getitem")
def _getitem(g: Graph, y: Tensor, x: Any, *, index: Any) -> None:
    parts = index if isinstance(index, tuple) else (index,)
    axes = AXES.get(x.ndim)
    if axes is None or not all(isinstance(p, slice) and (p.step or 1) > 0 for p in parts):
        raise DataError(f"to ONNX: x[{index}] of x with {x.ndim} axes")
    cut = [(axis, p) for axis, p in zip(axes, parts, strict=False) if p != slice(None)]
    rows = {
        "starts": [p.start or 0 for _, p in cut],
        "ends": [INT64_MAX if p.stop is None else p.stop for _, p in cut],
        "axes": [axis for axis, _ in cut],
        "steps": [p.step or 1 for _, p in cut],
    }
    names = [g.constant(f"slice.{n}", np.array(row, np.int64)) for n, row in rows.items()]
    g.known(y, g.add("Slice", [g.value(x), *names]))


@emits("pad")
def _pad(g: Graph, y: Tensor, x: Any, *, widths: Any, value: float = 0) -> None:
    if x.ndim not in AXES:
        raise DataError(f"to ONNX: pad of x with {x.ndim} axes")
    order = np.argsort(AXES[x.ndim])  # ONNX's axes, by ours
    both = [widths[axis][0] for axis in order] + [widths[axis][1] for axis in order]
    amounts = g.constant("pad.widths", np.array(both, np.int64))
    g.known(y, g.add("Pad", [g.value(x), amounts, g.value(float(value))]))


@emits("flatten")
def _flatten(g: Graph, y: Tensor, x: Any, *, start_axis: int = 0) -> None:
    if start_axis != 1 or (x.ndim == 4 and x.shape[1:3] != (1, 1)):
        raise DataError(f"to ONNX: flatten of {x.shape} from axis {start_axis}")
    g.known(y, g.add("Flatten", [g.value(x)], axis=1))


# Pooling


@emits("max_pool2d")
def _max_pool2d(
    g: Graph, y: Tensor, x: Any, *, kernel_size: Any, stride: Any = None, padding: Any = 0
) -> None:
    g.known(y, g.add("MaxPool", [g.value(x)], **_pooling(kernel_size, stride, padding)))


@emits("avg_pool2d")
def _avg_pool2d(
    g: Graph,
    y: Tensor,
    x: Any,
    *,
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    count_include_pad: bool = True,
) -> None:
    attributes = _pooling(kernel_size, stride, padding)
    counted = int(count_include_pad)
    g.known(y, g.add("AveragePool", [g.value(x)], **attributes, count_include_pad=counted))


def _pooling(kernel_size: Any, stride: Any, padding: Any) -> dict[str, Any]:
    return {
        "kernel_shape": list(pair("pool", "kernel_size", kernel_size)),
        "strides": list(pair("pool", "stride", kernel_size if stride is None else stride)),
        "pads": list(pair("pool", "padding", padding, least=0)) * 2,
    }


@emits("global_avg_pool2d")
def _global_avg_pool2d(g: Graph, y: Tensor, x: Any) -> None:
    g.known(y, g.add("Flatten", [g.add("GlobalAveragePool", [g.value(x)])], axis=1))


@emits("global_max_pool2d")
def _global_max_pool2d(g: Graph, y: Tensor, x: Any) -> None:
    g.known(y, g.add("Flatten", [g.add("GlobalMaxPool", [g.value(x)])], axis=1))


# Element by element


def _register_elementwise() -> None:
    def unary(kind: str) -> Callable[..., None]:
        return lambda g, y, x: g.known(y, g.add(kind, [g.value(x)]))

    def binary(kind: str) -> Callable[..., None]:
        def emit(g: Graph, y: Tensor, a: Any, b: Any) -> None:
            for x in (a, b):
                if np.size(x) > 1 and np.shape(x) != y.shape:  # channels are last only here
                    raise DataError(f"to ONNX: {kind} of {np.shape(x)} broadcast to {y.shape}")
            g.known(y, g.add(kind, [g.value(a), g.value(b)]))

        return emit

    for name, kind in UNARY.items():
        emits(name)(unary(kind))
    for name, kind in BINARY.items():
        emits(name)(binary(kind))


_register_elementwise()


@emits("silu")
def _silu(g: Graph, y: Tensor, x: Any) -> None:
    name = g.value(x)
    g.known(y, g.add("Mul", [name, g.add("Sigmoid", [name])]))


@emits("gelu")
def _gelu(g: Graph, y: Tensor, x: Any, *, approximate: str = "none") -> None:
    if approximate != "none":
        raise DataError(f"to ONNX: gelu with approximate={approximate!r}")
    name = g.value(x)
    share = g.add("Erf", [g.add("Mul", [name, g.value(0.5**0.5)])])
    g.known(
        y, g.add("Mul", [g.add("Mul", [name, g.value(0.5)]), g.add("Add", [share, g.value(1.0)])])
    )


@emits("dropout")
def _dropout(g: Graph, y: Tensor, x: Any, **_: Any) -> None:
    g.known(y, g.value(x))  # the identity in evaluation
