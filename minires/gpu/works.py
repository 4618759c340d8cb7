"""The kernels of a ResNet-18 step one by one, each beside the time that it takes at the least.

The floor of a row is the longer of bytes / copy rate and operations / product rate, both measured
on this GPU; every array counts once, so a kernel that reads something twice stays below 100 %.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np

from ..backend import is_array, to_device
from ..kernels.dispatch import KERNELS
from ..kernels.im2col import output_size
from ..kernels.random import Key
from ..op import OPS
from .clock import seconds

__all__ = ["Work", "time_works", "works"]

# side and channels of the images, filters, window, stride: the distinct layers at 224 pixels
LAYERS = [
    (224, 3, 64, 7, 2),
    (56, 64, 64, 3, 1),
    (56, 64, 128, 3, 2),
    (56, 64, 128, 1, 2),
    (28, 128, 128, 3, 1),
    (14, 256, 256, 3, 1),
    (7, 512, 512, 3, 1),
]
NORMED = [(112, 64), (56, 64), (28, 128), (14, 256), (7, 512)]
PARAMETERS = 11_689_512
POOL: dict[str, Any] = {"window": (3, 3), "stride": (2, 2), "padding": (1, 1)}
SGD: dict[str, Any] = {
    "momentum": 0.9,
    "dampening": 0.0,
    "nesterov": False,
    "weight_decay": 1e-4,
    "first": False,
}
ADAM: dict[str, Any] = {
    "beta1": 0.9,
    "beta2": 0.999,
    "eps": 1e-8,
    "weight_decay": 1e-2,
    "decoupled": True,
}


class Work(NamedTuple):
    """A call on the GPU; `operations` of a matrix product in it; `moved` bytes where they are not
    those of its arguments and results."""

    name: str
    shape: str
    function: Callable[..., Any]
    arguments: tuple[Any, ...]
    operations: int = 0
    moved: int = 0


def works(n: int, share: int = 1) -> Iterator[Work]:
    """All of them for n images; share: divides sides and sizes, for a quick try."""
    rng = np.random.default_rng(0)

    def normal(*shape: int) -> Any:
        return to_device(rng.standard_normal(shape, np.float32), "cuda")

    for side, c, k, window, stride in LAYERS:
        yield from _convolution(normal, n, max(window, side // share), c, k, window, stride)
    for side, c in NORMED:
        x, y = (normal(n, max(1, side // share), max(1, side // share), c) for _ in range(2))
        yield from _norm(normal, x, y)
    x = normal(n, 112 // share, 112 // share, 64)
    yield from _pools(x, normal)
    logits, labels = normal(n, 1000), to_device(rng.integers(0, 1000, n), "cuda")
    yield _kernel("softmax_loss", (logits, labels), smoothing=0.1)
    for name in ("relu", "add", "mean"):
        operands = (x, normal(*x.shape)) if name == "add" else (x,)
        yield Work(name, _shape(x), lambda *a, op=OPS[name]: op.function(*a)[0], operands)
    yield _kernel("drop", (x,), p=0.5, key=Key(0, 1, 2))
    yield from _updates(normal, PARAMETERS // share**2)
    pixels = rng.integers(0, 256, (n, 224 // share, 224 // share, 3), np.uint8)
    table = np.linspace(-1, 1, 3 * 256, dtype=np.float32).reshape(256, 3)
    given = tuple(to_device(a, "cuda") for a in (pixels, np.arange(n), table))
    yield _kernel("augment_batch", given, pad=4, flip=True, cutout=8, seed=1)


def _convolution(normal: Any, n: int, side: int, c: int, k: int, r: int, s: int) -> Iterator[Work]:
    params: dict[str, Any] = {
        "stride": (s, s),
        "padding": (r // 2, r // 2),
        "dilation": (1, 1),
        "groups": 1,
    }
    p = output_size(side, r, s, r // 2, 1)
    x, w, g = normal(n, side, side, c), normal(r, r, c, k), normal(n, p, p, k)
    operations = 2 * g.size * r * r * c
    yield _kernel("conv2d", (x, w), operations, **params)
    yield _kernel("conv2d_input_gradient", (g, w), operations, size=(side, side), **params)
    yield _kernel("conv2d_weight_gradient", (x, g), operations, window=(r, r), **params)


def _norm(normal: Any, x: Any, y: Any) -> Iterator[Work]:
    c = x.shape[-1]
    gamma, beta = normal(c), normal(c)
    yield _kernel("normalise_batch", (x, gamma, beta, y), eps=1e-5, relu=True)
    _, mean, var = KERNELS["normalise_batch"](x, gamma, beta, y, eps=1e-5, relu=True)
    given = (y, x, gamma, beta, mean, var, x)
    yield _kernel("normalise_gradient", given, relu=True, from_batch=True)


def _pools(x: Any, normal: Any) -> Iterator[Work]:
    yield _kernel("max_pool2d", (x,), **POOL)
    y, index = KERNELS["max_pool2d"](x, **POOL)
    given = (normal(*y.shape), index)
    yield _kernel("max_pool2d_gradient", given, size=x.shape[1:3], **POOL)


def _updates(normal: Any, size: int) -> Iterator[Work]:
    """They write into what they read: weights and one or two moments."""
    w, g, m, v = (normal(size) for _ in range(4))
    v *= v
    yield _kernel("sgd_step", (w, g, m), moved=5 * w.nbytes, lr=0.0, **SGD)
    yield _kernel("adam_step", (w, g, m, v), moved=7 * w.nbytes, lr=0.0, step=1, **ADAM)


def _kernel(
    name: str, arguments: tuple[Any, ...], operations: int = 0, moved: int = 0, **params: Any
) -> Work:
    shape = " * ".join(_shape(a) for a in arguments[:2] if a.ndim > 1) or _shape(arguments[0])
    run = KERNELS[name]
    return Work(name, shape, lambda *a: run(*a, **params), arguments, operations, moved)


def _shape(x: Any) -> str:
    return "x".join(map(str, x.shape))


def _bytes(value: Any) -> int:
    if isinstance(value, list | tuple):
        return sum(map(_bytes, value))
    return value.nbytes if is_array(value) else 0


def time_works(
    given: Iterator[Work], copy_rate: float, product_rate: float, most: int
) -> Iterator[dict[str, Any]]:
    """A row for each: milliseconds, GB/s and TFLOP/s reached, the floor and its share."""
    for work in given:
        moved = work.moved or _bytes([work.arguments, work.function(*work.arguments)])
        taken = seconds(lambda work=work: work.function(*work.arguments), most)
        least = max(moved / copy_rate, work.operations / product_rate)
        yield {
            "op": work.name,
            "shape": work.shape,
            "ms": 1e3 * taken,
            "gb_s": moved / taken / 1e9,
            "tflop_s": work.operations / taken / 1e12 or None,
            "floor_ms": 1e3 * least,
            "share": least / taken,
        }
