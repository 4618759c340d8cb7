"""Weights for inference: a convolution's with its BatchNorm folded in, kept until one of the values
they came from changes.

In evaluation a BatchNorm multiplies each channel by a constant and adds another, which the
convolution can do itself: bn(conv(x, w)) = conv(x, w · scale) + shift. Beside the folded weights
lives what the kernels make of them (`packed` of `functional.conv_bias`), so that a forward pass
transforms no weights at all.

What is kept is never out of date. It belongs to one weight tensor at one version, which every way
of writing to a tensor raises; of the vectors (gamma, beta, the running statistics, which are bare
arrays that anyone may write into) it remembers the bytes. It dies with its convolution, and goes
when that is called in training. On a GPU, where comparing bytes would mean waiting for it, nothing
is kept: folding is a few small launches.
"""

from __future__ import annotations

from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

from ..backend import device_of
from ..functional.norm import fold
from ..tensor import Tensor
from .module import Module

__all__ = ["Folded", "folded", "forget"]


class Folded(NamedTuple):
    """What to give to `functional.conv_bias`, and what it was made from."""

    w: Any  # (r, s, c / groups, k)
    b: Any  # (k,)
    packed: dict[str, Any]
    source: tuple[Any, ...]


_kept: WeakKeyDictionary[Module, Folded] = WeakKeyDictionary()


def folded(conv: Any, bn: Any) -> Folded:
    """The weights of a `Conv2d` followed by a `BatchNorm2d` in evaluation."""
    bias, gamma, beta = (None if v is None else v.array for v in (conv.bias, bn.weight, bn.bias))
    vectors = bias, gamma, beta, bn.running_mean, bn.running_var
    weight: Tensor = conv.weight
    if device_of(weight.array) != "cpu":  # looking at the vectors would wait for the GPU
        return Folded(
            *fold(weight.array, bias, gamma, beta, running=vectors[3:], eps=bn.eps), {}, ()
        )
    contents = [None if v is None else (v.dtype, v.tobytes()) for v in vectors]
    source = (bn.eps, conv.groups, weight.version, *contents)
    kept = _kept.get(conv)
    if kept is None or not _same(kept.source, (weight, weight.array, *source)):
        w, b = fold(weight.array, bias, gamma, beta, running=vectors[3:], eps=bn.eps)
        kept = _kept[conv] = Folded(w, b, {}, (weight, weight.array, *source))
    return kept


def _same(a: tuple[Any, ...], b: tuple[Any, ...]) -> bool:
    """Whether the tensors and their arrays are identical and the rest is equal."""
    return a[0] is b[0] and a[1] is b[1] and a[2:] == b[2:]


def forget(conv: Module) -> None:
    """Drop what is kept for a convolution."""
    _kept.pop(conv, None)
