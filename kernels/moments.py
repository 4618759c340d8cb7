"""Mean and variance of each channel: sums over few rows in float32, joined in float64.

Of each few rows only what they differ from a start is summed, and the square of that: the start is
one of them or the mean of some, so whatever the mean is, little cancels. Chan's rule then joins
what several groups of rows found, always in the same order.

The sums come from a pass over the rows, `part_moments`, or from the convolution that made the rows
(`winograd.convolve_and_sum`).

Source: Chan, Golub and LeVeque, "Updating formulae and a pairwise algorithm for computing sample
variances", 1979.
"""

from __future__ import annotations

import numba
import numpy as np

from .isa import ISA
from .simd import copy_vector, vector_function

__all__ = ["PARTS", "ROWS", "WIDTH", "merge_groups", "merge_parts", "part_moments"]

PARTS = 16  # row ranges, each with its sums
ROWS = 64  # rows that are summed in float32 before float64 takes over
WIDTH = ISA.width or 4  # channels in a vector

_copy = vector_function(WIDTH)(copy_vector)


@vector_function(WIDTH)
def _add_row(lanes, x, start, total, squares):
    d = lanes.subtract(lanes.load(x), lanes.load(start))
    lanes.store(lanes.add(lanes.load(total), d), total)
    lanes.store(lanes.multiply_add(d, d, lanes.load(squares)), squares)


@numba.njit(nogil=True)
def _join(sums, new, seen, mean, squares):
    """Join `new` rows to those seen before, of which mean and sum of squared deviations are known.
    sums (3, width): their start, and the sums of differences from it and of squared ones.
    """
    share = new / (seen + new)
    for k in range(mean.size):
        total = np.float64(sums[1, k])
        delta = np.float64(sums[0, k]) + total / new - mean[k]
        mean[k] += delta * share
        squares[k] += np.float64(sums[2, k]) - total * total / new
        squares[k] += delta * delta * seen * share


@numba.njit(nogil=True)
def part_moments(x, low, high, part):
    """part (2, width) = mean and sum of squared deviations of the rows low … high - 1."""
    width = part.shape[1]
    sums = np.empty((3, width), np.float32)
    first, d, dd = sums.ctypes.data, sums[1:].ctypes.data, sums[2:].ctypes.data
    for start in range(low, high, ROWS):
        end = min(start + ROWS, high)
        sums[1:] = 0
        for k in range(0, 4 * width, 4 * WIDTH):
            _copy(first + k, x + 4 * start * width + k)
        for row in range(x + 4 * start * width, x + 4 * end * width, 4 * width):
            for k in range(0, 4 * width, 4 * WIDTH):
                _add_row(row + k, first + k, d + k, dd + k)
        _join(sums, end - start, start - low, part[0], part[1])


@numba.njit(nogil=True)
def merge_parts(parts, count, mean, var):
    """mean and var (c,) of `count` rows from parts (PARTS, 2, width), the mean and the sum of
    squared deviations of each range; joined rows hold each channel several times.
    """
    c, seen = mean.size, 0
    mean[:], var[:] = 0, 0
    for t in range(PARTS):
        new = (t + 1) * count // PARTS - t * count // PARTS
        for start in range(0, parts.shape[2] if new else 0, c):
            share = new / (seen + new)
            for k in range(c):
                delta = parts[t, 0, start + k] - mean[k]
                mean[k] += delta * share
                var[k] += parts[t, 1, start + k] + delta * delta * seen * share
            seen += new
    var /= seen


@numba.njit(nogil=True)
def merge_groups(groups, each, count, mean, var):
    """mean and var (c,) of `count` rows from groups (…, 3, c), the sums that `_join` takes, each
    of so many rows, the last of what is left.
    """
    mean[:], var[:] = 0, 0
    for t in range(len(groups)):
        _join(groups[t], min(each, count - t * each), t * each, mean, var)
    var /= count
