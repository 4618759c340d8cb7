"""The compiled loops of BatchNorm: rows of `width` numbers, in vectors.

As in `winograd_loops`, large arrays are addresses (int64). A row joins several rows of c channels,
so a vector `table` holds each channel's numbers several times. Every pass waits for memory: what
counts is how often it reads and writes, and that large outputs are written past the cache (which
saves a third of their traffic, because a line need not be read before).

A pass that sums goes over PARTS row ranges, whatever the number of threads, and what they found is
added in float64 in a fixed order (of the batch's statistics: `moments`).
"""

from __future__ import annotations

import numba
import numpy as np

from .moments import PARTS, ROWS, WIDTH, merge_groups, merge_parts, part_moments
from .simd import finish_streams, vector_function
from .tasks import share, tasks

__all__ = [
    "FLOOR",
    "PARTS",
    "WIDTH",
    "move_statistics",
    "normalise",
    "normalise_batch",
    "normalise_gradient",
    "sum_gradient",
    "write_gradient",
]

PIECES = 64  # row ranges without sums

# rows of the tables (…, width) of each channel's numbers
SCALE, SHIFT, FLOOR = 0, 1, 2  # max(x · scale + shift, floor) is the output
MEAN, A, B, D = 2, 3, 4, 5  # a · g + b · x + d is the gradient


def _line(lanes, x, table, row):
    """x · scale + shift, rounded as often whoever computes it: the gradient needs the same sign."""
    scaled = lanes.multiply(x, lanes.load(table))
    return lanes.add(scaled, lanes.load(lanes.offset(table, row)))


def _normalise(lanes, x, table, row, y):
    v = _line(lanes, lanes.load(x), table, row)
    floor = lanes.load(lanes.offset(lanes.offset(table, row), row))
    lanes.put_out(lanes.larger(v, floor), y)


def _normalise_and_add(lanes, x, table, row, y, residual):
    v = lanes.add(_line(lanes, lanes.load(x), table, row), lanes.load(residual))
    floor = lanes.load(lanes.offset(lanes.offset(table, row), row))
    lanes.put_out(lanes.larger(v, floor), y)


def _add_sums(lanes, g, x, table, row, sums):
    """sums += g, and below it g · (x - mean)"""
    mean = lanes.load(lanes.steps(table, row, MEAN + 1)[MEAN])
    below = lanes.offset(sums, row)
    lanes.store(lanes.add(lanes.load(sums), g), sums)
    x = lanes.subtract(x, mean)
    lanes.store(lanes.multiply_add(g, x, lanes.load(below)), below)


@vector_function(WIDTH)
def _sum_gated(lanes, g, x, table, row, sums):
    x = lanes.load(x)
    g = lanes.where_positive(_line(lanes, x, table, row), lanes.load(g))
    _add_sums(lanes, g, x, table, row, sums)


def _sum_masked(lanes, g, x, table, row, sums, y, masked):
    g = lanes.where_positive(lanes.load(y), lanes.load(g))
    lanes.put_out(g, masked)
    _add_sums(lanes, g, lanes.load(x), table, row, sums)


def _gradient(lanes, g, x, table, row, dx):
    x = lanes.load(x)
    a, b, d = (lanes.load(place) for place in lanes.steps(table, row, D + 1)[A:])
    g = lanes.where_positive(_line(lanes, x, table, row), lanes.load(g))
    lanes.put_out(lanes.multiply_add(a, g, lanes.multiply_add(b, x, d)), dx)


_fence = vector_function(WIDTH)(finish_streams)
_keep, _stream = vector_function(WIDTH), vector_function(WIDTH, streams=True)
_normalise_keep, _normalise_stream = _keep(_normalise), _stream(_normalise)
_add_keep, _add_stream = _keep(_normalise_and_add), _stream(_normalise_and_add)
_mask_keep, _mask_stream = _keep(_sum_masked), _stream(_sum_masked)
_gradient_keep, _gradient_stream = _keep(_gradient), _stream(_gradient)


@numba.njit(nogil=True)
def _set_line(gamma, beta, mean, var, eps, table):
    """The line that normalises: (x - mean) / std · gamma + beta = x · scale + shift."""
    c = mean.size
    for k in range(table.shape[1]):
        scale = gamma[k % c] * (1 / np.sqrt(var[k % c] + eps))
        table[SCALE, k] = scale
        table[SHIFT, k] = beta[k % c] - mean[k % c] * scale


@numba.njit(nogil=True)
def _part_outputs(x, low, high, table, residual, y, stream):
    row, address = 4 * table.shape[1], table.ctypes.data
    for start in range(low * row, high * row, row):
        for k in range(0, row, 4 * WIDTH):
            i = start + k
            if residual and stream:
                _add_stream(x + i, address + k, row, y + i, residual + i)
            elif residual:
                _add_keep(x + i, address + k, row, y + i, residual + i)
            elif stream:
                _normalise_stream(x + i, address + k, row, y + i)
            else:
                _normalise_keep(x + i, address + k, row, y + i)
    if stream:
        _fence()


@numba.njit(cache=True, parallel=True)
def normalise(x, count, table, residual, y, stream, workers):
    """y = max(x · scale + shift (+ residual), floor) for `count` rows; residual may be 0."""
    left = share(PIECES, workers)
    for worker in numba.prange(workers):
        for t in tasks(left, worker):
            low, high = t * count // PIECES, (t + 1) * count // PIECES
            _part_outputs(x, low, high, table, residual, y, stream)


@numba.njit(nogil=True)
def _zeros(rows, width):
    """A row range's sums; in a function of its own, or Numba would clear them in parallel."""
    return np.zeros((PARTS, rows, width))


@numba.njit(cache=True, parallel=True)
def _measure(x, count, width, moments, workers):
    """moments (2, c) = mean and variance of `count` rows of `width` numbers."""
    parts = _zeros(2, width)
    left = share(PARTS, workers)
    for worker in numba.prange(workers):
        for t in tasks(left, worker):
            part_moments(x, t * count // PARTS, (t + 1) * count // PARTS, parts[t])
    merge_parts(parts, count, moments[0], moments[1])


@numba.njit(cache=True, nogil=True)
def normalise_batch(
    x, count, width, groups, each, gamma, beta, eps, relu, moments, residual, y, stream, workers
):  # fmt: skip
    """The same by the batch's own mean and variance, which go to moments (2, c), for `count` rows
    of `width` numbers. groups (…, 3, c): sums of `each` few pixels, if the convolution made them.
    """
    if len(groups):
        merge_groups(groups, each, count * (width // gamma.size), moments[0], moments[1])
    else:
        _measure(x, count, width, moments, workers)
    table = np.empty((3, width), np.float32)
    _set_line(gamma, beta, moments[0], moments[1], eps, table)
    table[FLOOR] = 0 if relu else -np.inf
    normalise(x, count, table, residual, y, stream, workers)


@numba.njit(cache=True, nogil=True)
def move_statistics(running_mean, running_var, mean, var, momentum, rows):
    """Move running statistics (c,) towards a batch's, of so many rows."""
    keep, unbiased = np.float32(1 - momentum), momentum * rows / (rows - 1)
    for k in range(mean.size):
        running_mean[k] = keep * running_mean[k] + momentum * mean[k]
        running_var[k] = keep * running_var[k] + unbiased * var[k]


@numba.njit(nogil=True)
def _part_sums(g, x, low, high, table, y, masked, stream, part):
    """part (2, width) = the sums of g and of g · (x - mean) over the rows low … high - 1."""
    row, address = 4 * table.shape[1], table.ctypes.data
    sums = np.empty(part.shape, np.float32)
    to = sums.ctypes.data
    for first in range(low, high, ROWS):
        sums[:] = 0
        for start in range(first * row, min(first + ROWS, high) * row, row):
            for k in range(0, row, 4 * WIDTH):
                i = start + k
                if not y:
                    _sum_gated(g + i, x + i, address + k, row, to + k)
                elif stream:
                    _mask_stream(g + i, x + i, address + k, row, to + k, y + i, masked + i)
                else:
                    _mask_keep(g + i, x + i, address + k, row, to + k, y + i, masked + i)
        part += sums
    if y and stream:
        _fence()


@numba.njit(nogil=True)
def _set_coefficients(gamma, mean, var, eps, parts, rows, from_batch, sums, table):
    """sums (2, c) = dbeta and dgamma, and the table's a, b, d; see `norm.normalise_gradient`."""
    c = mean.size
    total = np.zeros((2, c))
    for t in range(PARTS):
        for j in range(2):
            for start in range(0, parts.shape[2], c):
                for k in range(c):
                    total[j, k] += parts[t, j, start + k]
    for k in range(c):
        inverse_std = 1 / np.sqrt(var[k] + eps)
        total[1, k] *= inverse_std
        sums[0, k], sums[1, k] = total[0, k], total[1, k]
        a = gamma[k] * inverse_std
        b = -a * total[1, k] * inverse_std / rows if from_batch else 0.0
        d = -a * total[0, k] / rows - b * mean[k] if from_batch else 0.0
        for i in range(k, table.shape[1], c):
            table[A, i], table[B, i], table[D, i] = a, b, d


@numba.njit(nogil=True)
def write_gradient(g, x, low, high, table, dx, stream):
    """The second pass: dx of the rows low … high - 1 from g, masked if there is a y."""
    row, address = 4 * table.shape[1], table.ctypes.data
    for start in range(low * row, high * row, row):
        for k in range(0, row, 4 * WIDTH):
            i = start + k
            if stream:
                _gradient_stream(g + i, x + i, address + k, row, dx + i)
            else:
                _gradient_keep(g + i, x + i, address + k, row, dx + i)
    if stream:
        _fence()


@numba.njit(nogil=True)
def _prepare_gradient(gamma, beta, mean, var, eps, gated, table):
    if gated:
        _set_line(gamma, beta, mean, var, eps, table)
    else:
        table[SCALE], table[SHIFT] = 0, 1  # every 0 · x + 1 is positive
    for k in range(table.shape[1]):
        table[MEAN, k] = mean[k % mean.size]


@numba.njit(cache=True, parallel=True)
def sum_gradient(
    g, x, count, width, gamma, beta, mean, var, eps,
    gated, from_batch, y, masked, sums, table, stream, workers,
):  # fmt: skip
    """The first pass: sums (2, c) = dbeta, dgamma and a table (6, width) for the second; where y is
    not 0, masked = g where y > 0.
    """
    parts = _zeros(2, width)
    _prepare_gradient(gamma, beta, mean, var, eps, gated, table)
    left = share(PARTS, workers)
    for worker in numba.prange(workers):
        for t in tasks(left, worker):
            low, high = t * count // PARTS, (t + 1) * count // PARTS
            _part_sums(g, x, low, high, table, y, masked, stream, parts[t])
    rows = count * (width // mean.size)
    _set_coefficients(gamma, mean, var, eps, parts, rows, from_batch, sums, table)


@numba.njit(cache=True, parallel=True)
def normalise_gradient(
    g, x, count, width, gamma, beta, mean, var, eps,
    gated, from_batch, y, masked, sums, dx, stream, workers,
):  # fmt: skip
    """dx and sums (2, c) = dbeta, dgamma; where y is not 0, masked = g where y > 0."""
    table = np.empty((6, width), np.float32)
    sum_gradient(
        g, x, count, width, gamma, beta, mean, var, eps,
        gated, from_batch, y, masked, sums, table, stream, workers,
    )  # fmt: skip
    upstream = masked if y else g
    left = share(PIECES, workers)
    for worker in numba.prange(workers):
        for t in tasks(left, worker):
            low, high = t * count // PIECES, (t + 1) * count // PIECES
            write_gradient(upstream, x, low, high, table, dx, stream)
