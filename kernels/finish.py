"""What a convolution does to its outputs while they are still in the cache: + bias, + residual, and
ReLU.

A pass of its own over an output costs as much memory traffic as the convolution itself. So the
compiled loops of `winograd` and `direct` finish each few outputs right after computing them;
`finish_array` is the same for whole arrays.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numba
import numpy as np

from .dispatch import array_module
from .isa import ISA
from .simd import INT64, Lanes, vector_function

__all__ = ["NOTHING", "Finish", "finish_array", "finish_numbers", "prepare_finish"]

WIDTH = ISA.width or 1  # channels in a vector


class Finish(NamedTuple):
    """The addresses of a bias (k,) and of a residual like the output, 0 for none."""

    bias: int
    residual: int
    relu: bool


NOTHING = Finish(0, 0, False)


def finish_array(y: Any, b: Any, residual: Any, relu: bool) -> Any:
    """y + b + residual, then max(·, 0) with `relu`, written into y (…, k); b is (k,) or None."""
    if b is not None:
        y += b
    if residual is not None:
        y += residual
    return array_module(y).maximum(y, 0, out=y) if relu else y


def prepare_finish(k: int, b: Any, residual: Any, relu: bool) -> tuple[Finish, tuple[Any, ...]]:
    """The same for the compiled loops, and the float32 arrays to keep while they run."""
    if b is None and residual is None and not relu:
        return NOTHING, ()
    bias = np.zeros(k, np.float32) if b is None else np.ascontiguousarray(b)
    kept = bias if residual is None else np.ascontiguousarray(residual)
    address = 0 if residual is None else kept.ctypes.data
    return Finish(bias.ctypes.data, address, relu), (bias, kept)


def _finish(lanes: Lanes, y: Any, bias: Any, residual: Any, relu: Any, mask: Any) -> None:
    total = lanes.add(lanes.load(y, mask), lanes.load(bias, mask))
    if residual is not None:
        total = lanes.add(total, lanes.load(residual, mask))
    builder = lanes.builder
    clamps = builder.icmp_signed("!=", relu, INT64(0))
    least = builder.select(clamps, lanes.constant(0.0), lanes.constant(-np.inf))
    below = builder.fcmp_ordered("<", total, least)  # never for NaN, which stays
    lanes.store(builder.select(below, least, total), y, mask)


def add_bias(lanes, y, bias, relu, count=None):
    """y = max(y + bias, least)"""
    _finish(lanes, y, bias, None, relu, lanes.first(count))


def add_both(lanes, y, bias, residual, relu, count=None):
    """y = max(y + bias + residual, least)"""
    _finish(lanes, y, bias, residual, relu, lanes.first(count))


_add_bias = vector_function(WIDTH)(add_bias)
_add_bias_end = vector_function(WIDTH, optional=True)(add_bias)
_add_both = vector_function(WIDTH)(add_both)
_add_both_end = vector_function(WIDTH, optional=True)(add_both)


@numba.njit(nogil=True)
def finish_numbers(finish, y, start, first, count):
    """Finish the outputs first … first + count - 1 of the array at `y`, all of one pixel, whose
    channels begin at `start`.
    """
    to, bias, relu = y + 4 * first, finish.bias + 4 * start, int(finish.relu)
    whole = count // WIDTH * WIDTH
    if finish.residual:
        residual = finish.residual + 4 * first
        for i in range(0, whole, WIDTH):
            _add_both(to + 4 * i, bias + 4 * i, residual + 4 * i, relu)
        if whole < count:
            at = 4 * whole
            _add_both_end(to + at, bias + at, residual + at, relu, count - whole)
        return
    for i in range(0, whole, WIDTH):
        _add_bias(to + 4 * i, bias + 4 * i, relu)
    if whole < count:
        _add_bias_end(to + 4 * whole, bias + 4 * whole, relu, count - whole)
