"""What `benchmarks.ops` times: each distinct layer shape of a network, in minires and in PyTorch.

Both get the same numbers: images (n, h, w, c) for us, the same memory as channels-last tensors for
PyTorch.
"""
# pyright: reportMissingImports=false

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

import minires as mr
import minires.functional as F
from minires import models, optim
from minires.functional.conv import pair
from minires.kernels import conv as kernels
from minires.kernels.im2col import output_size
from minires.kernels.plan import choose_convolution
from minires.train.info import kernel_inputs
from tests import tolerances

__all__ = ["Work", "works"]

Run = Callable[[], Any]  # the call to be timed; returns the arrays to compare
Shape = tuple[int, ...]


@dataclass(frozen=True)
class Work:
    """One row of the table."""

    op: str
    shape: str
    ours: Run
    theirs: Callable[[Any], Run]  # of the module torch
    exact: Run | None  # in float64
    bound: float = tolerances.FLOAT32  # of our relative RMS error
    flops: float = 0  # of the plain formula, whatever an algorithm saves; 0: not counted
    algorithm: str = ""


def draw(*shape: int) -> np.ndarray:
    """Normal numbers, the same for the same shape."""
    return np.random.default_rng(list(shape)).standard_normal(shape, np.float32)


def to_torch(torch: Any, array: np.ndarray) -> Any:
    """Images (n, h, w, c) or weights (r, s, c, k) as PyTorch's channels-last tensors."""
    if array.ndim < 4:
        return torch.from_numpy(array)
    return torch.from_numpy(array).permute(0, 3, 1, 2)


def to_images(tensor: Any) -> np.ndarray:
    """A tensor (n, c, h, w) as (n, h, w, c); others as they are."""
    tensor = tensor.detach()
    return (tensor.permute(0, 2, 3, 1) if tensor.ndim == 4 else tensor).numpy()


def doubles(arrays: list[np.ndarray]) -> list[np.ndarray]:
    """The arrays in float64."""
    return [a.astype(np.float64) if a.dtype == np.float32 else a for a in arrays]


def works(name: str, arguments: dict[str, Any], size: int, batch: int) -> Iterator[Work]:
    """The work of a training step of a model on images of `size` pixels, each shape once."""
    model = getattr(models, name)(**arguments)
    modules: dict[str, Any] = dict(model.named_modules())
    seen, outputs = set(), {}
    for path, x in kernel_inputs(model, (size, size, 3)).items():
        conv, x = modules[path], (batch, *x[1:])
        geometry = {what: pair("conv2d", what, getattr(conv, what), least=0)
                    for what in ("stride", "padding", "dilation")}  # fmt: skip
        geometry["groups"] = conv.groups
        key = x, conv.weight.shape, str(geometry)
        if key not in seen:
            seen.add(key)
            output = _output(x, conv.weight.shape, geometry)
            outputs[output] = None
            yield from _convolution(x, conv.weight.shape, output, geometry, first=len(seen) == 1)
    for shape in outputs:
        yield _batch_norm(shape)
    if arguments.get("stem") == "imagenet":
        yield _max_pool((batch, size // 2, size // 2, 64))
    yield _linear(batch, *model.fc.weight.shape)
    yield _cross_entropy(batch, arguments["num_classes"])
    yield _sgd(model)


def _output(x: Shape, w: Shape, geometry: dict[str, Any]) -> Shape:
    p, q = (
        output_size(x[1 + i], w[i], *(geometry[k][i] for k in ("stride", "padding", "dilation")))
        for i in (0, 1)
    )
    return x[0], p, q, w[3]


def _convolution(
    x_shape: Shape, w_shape: Shape, output: Shape, geometry: dict[str, Any], first: bool
) -> Iterator[Work]:
    """Forward and both gradients; the network's first convolution needs no input gradient."""
    x, w, g = draw(*x_shape), draw(*w_shape) / math.sqrt(math.prod(w_shape[:3])), draw(*output)
    algorithm = choose_convolution(x_shape, w_shape, **geometry, dtype=np.float32)
    stride = f" /{geometry['stride'][0]}" if geometry["stride"] != (1, 1) else ""
    shape = f"{'x'.join(map(str, x_shape))} * {'x'.join(map(str, w_shape))}{stride}"
    flops = 2 * math.prod(output[:3]) * math.prod(w_shape)
    winograd = algorithm in ("winograd", "polyphase")
    bound = tolerances.WINOGRAD32 if winograd else tolerances.CONV32

    def forward(x: Any, w: Any) -> Any:
        return kernels.conv2d(x, w, **geometry)

    def input_gradient(g: Any, w: Any) -> Any:
        return kernels.conv2d_input_gradient(g, w, size=x_shape[1:3], **geometry)

    def weight_gradient(x: Any, g: Any) -> Any:
        return kernels.conv2d_weight_gradient(x, g, window=w_shape[:2], **geometry)

    def rival(which: int) -> Callable[[Any], Run]:
        def make(torch: Any) -> Run:
            tx, tg = to_torch(torch, x), to_torch(torch, g)
            tw = torch.from_numpy(np.ascontiguousarray(w.transpose(3, 2, 0, 1)))
            tw = tw.contiguous(memory_format=torch.channels_last)
            last = [list(geometry[k]) for k in ("stride", "padding", "dilation")]
            if which == 0:
                groups = geometry["groups"]
                return lambda: to_images(torch.conv2d(tx, tw, None, *last, groups))
            mask = [which == 1, which == 2, False]
            more = None, *last, False, [0, 0], geometry["groups"], mask

            def backward() -> Any:
                found = torch.ops.aten.convolution_backward(tg, tx, tw, *more)
                if which == 1:
                    return to_images(found[0])
                return found[1].detach().permute(2, 3, 1, 0).numpy()

            return backward

        return make

    for which, (op, call, a, b, limit) in enumerate(
        (
            ("conv forward", forward, x, w, bound),
            ("conv input gradient", input_gradient, g, w, bound),
            ("conv weight gradient", weight_gradient, x, g, tolerances.WINOGRAD_WEIGHTS32),
        )
    ):
        if first and which == 1:
            continue
        yield Work(
            op,
            shape,
            ours=lambda call=call, a=a, b=b: call(a, b),
            theirs=rival(which),
            exact=lambda call=call, a=a, b=b: call(*doubles([a, b])),
            bound=limit,
            flops=flops,
            algorithm=algorithm,
        )


def _differentiable(
    op: str, shape: str, call: Callable[..., Any], rival: Callable[..., Any], arrays: list[Any]
) -> Work:
    """Forward and backward of an operation through each engine's graph.

    `arrays`: those of float32 get gradients. The last is the upstream gradient, None for a loss.
    Compared are the output and the first array's gradient.
    """

    def run(values: list[Any]) -> list[np.ndarray]:
        *inputs, g = values
        wrapped = [mr.tensor(a, requires_grad=a.dtype.kind == "f") for a in inputs]
        y = call(*wrapped[:-1], inputs[-1]) if inputs[-1].dtype.kind != "f" else call(*wrapped)
        y.backward(g)
        return [y.numpy(), wrapped[0].grad]

    def theirs(torch: Any) -> Run:
        *inputs, g = [None if a is None else to_torch(torch, a) for a in arrays]
        leaves = [a.detach().requires_grad_(a.is_floating_point()) for a in inputs]

        def step() -> list[np.ndarray]:
            for leaf in leaves:
                leaf.grad = None
            y = rival(torch, *leaves)
            y.backward(g)
            return [to_images(y), to_images(leaves[0].grad)]

        return step

    def exact() -> list[np.ndarray]:
        *inputs, g = arrays
        return run([*doubles(inputs), None if g is None else g.astype(np.float64)])

    return Work(op, shape, lambda: run(arrays), theirs, exact)


def _batch_norm(shape: Shape) -> Work:
    c = shape[3]
    x, g = draw(2, *shape)  # a gradient like x would be normalised away
    return _differentiable(
        "batch_norm both ways",
        "x".join(map(str, shape)),
        lambda x, gamma, beta: F.batch_norm(x, gamma, beta, training=True),
        lambda torch, x, gamma, beta: torch.nn.functional.batch_norm(
            x, None, None, gamma, beta, training=True
        ),
        [x, 1 + 0.1 * draw(c), 0.1 * draw(c), g],
    )


def _max_pool(shape: Shape) -> Work:
    n, h, w, c = shape
    return _differentiable(
        "max_pool2d both ways",
        "x".join(map(str, shape)),
        lambda x: F.max_pool2d(x, kernel_size=3, stride=2, padding=1),
        lambda torch, x: torch.nn.functional.max_pool2d(x, 3, 2, 1),
        [draw(*shape), draw(n, (h + 1) // 2, (w + 1) // 2, c)],
    )


def _linear(n: int, inputs: int, outputs: int) -> Work:
    return _differentiable(
        "linear both ways",
        f"{n}x{inputs} @ {inputs}x{outputs}",
        F.linear,
        lambda torch, x, w, b: x @ w + b,
        [draw(n, inputs), draw(inputs, outputs), draw(outputs), draw(n, outputs)],
    )


def _cross_entropy(n: int, classes: int) -> Work:
    labels = np.random.default_rng(0).integers(0, classes, n)
    return _differentiable(
        "cross_entropy both ways",
        f"{n}x{classes}",
        F.cross_entropy,
        lambda torch, x, y: torch.nn.functional.cross_entropy(x, y),
        [draw(n, classes), labels, None],
    )


def _sgd(model: Any) -> Work:
    """The update of all parameters; there is nothing to compare with in float64."""
    options = {"lr": 1e-6, "momentum": 0.9, "weight_decay": 5e-4, "nesterov": True}
    opt = optim.SGD(model.parameters(), **options)
    parameters = list(model.parameters())
    for p in parameters:
        p.grad = np.zeros(p.shape, np.float32)

    def theirs(torch: Any) -> Run:
        leaves = [torch.zeros(p.shape, requires_grad=True) for p in parameters]
        for leaf in leaves:
            leaf.grad = torch.zeros_like(leaf)
        return torch.optim.SGD(leaves, foreach=True, **options).step

    count = sum(p.size for p in parameters)
    return Work("sgd step", f"{count:,} parameters", opt.step, theirs, None)
