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
from .memory import address
from .simd import INT64, Lanes, vector_function

__all__ = ["NOTHING", "Finish", "finish_array", "finish_numbers", "finish_vector", "prepare_finish"]

WIDTH = ISA.width or 1  # channels in a vector


class Finish(NamedTuple):
    """The addresses of a bias (k,) and of a residual like the output, 0 for none; or, without
    these, of where the sums for the outputs' moments go (`winograd.convolve_and_sum`).
    """

    bias: int
    residual: int
    relu: bool
    sums: int


NOTHING = Finish(0, 0, False, 0)


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
    added = 0 if residual is None else address(kept)
    return Finish(address(bias), added, relu, 0), (bias, kept)


def finish_vector(
    lanes: Lanes, y: Any, relu: Any, bias: Any, residual: Any = None, mask: Any = None
) -> Any:
    """The vector y plus those at the addresses `bias` and `residual`, clamped if `relu` is not 0:
    the instructions, for the body of a vector function.
    """
    builder = lanes.builder
    total = lanes.add(y, lanes.load(bias, mask))
    if residual is not None:
        total = lanes.add(total, lanes.load(residual, mask))
    clamps = builder.icmp_signed("!=", relu, INT64(0))
    least = builder.select(clamps, lanes.constant(0.0), lanes.constant(-np.inf))
    below = builder.fcmp_ordered("<", total, least)  # never for NaN, which stays
    return builder.select(below, least, total)


def add_bias(lanes, y, relu, bias, count=None):
    """y = max(y + bias, least)"""
    mask = lanes.first(count)
    lanes.store(finish_vector(lanes, lanes.load(y, mask), relu, bias, None, mask), y, mask)


def add_both(lanes, y, relu, bias, residual, count=None):
    """y = max(y + bias + residual, least)"""
    mask = lanes.first(count)
    lanes.store(finish_vector(lanes, lanes.load(y, mask), relu, bias, residual, mask), y, mask)


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
            _add_both(to + 4 * i, relu, bias + 4 * i, residual + 4 * i)
        if whole < count:
            at = 4 * whole
            _add_both_end(to + at, relu, bias + at, residual + at, count - whole)
        return
    for i in range(0, whole, WIDTH):
        _add_bias(to + 4 * i, relu, bias + 4 * i)
    if whole < count:
        _add_bias_end(to + 4 * whole, relu, bias + 4 * whole, count - whole)
