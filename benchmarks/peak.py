"""The most multiply-adds that the CPU does, measured: what a product can be compared with.

As many sums as a product tile has stay in registers; every step adds x · y to each, and nothing is
loaded. A fused multiply-add counts as two operations.
"""

from __future__ import annotations

import time
from functools import cache
from typing import Any

import numba
import numpy as np

from minires.kernels.isa import ISA
from minires.kernels.memory import threads
from minires.kernels.simd import INT64, Lanes, vector_function

__all__ = ["fixed_product", "peak"]

STEPS = 200_000
REPEATS = 15


def _chain(lanes: Lanes, place: Any, steps: Any, sums: int) -> None:
    """The instructions: a loop of `sums` independent multiply-adds a step."""
    builder = lanes.builder
    x, y = lanes.load(place), lanes.load(lanes.offset(place, 4 * lanes.width))
    before, loop = builder.block, builder.append_basic_block("loop")
    builder.branch(loop)
    builder.position_at_end(loop)
    left = builder.phi(INT64)
    totals = [builder.phi(lanes.type) for _ in range(sums)]
    new = [lanes.multiply_add(total, x, y) for total in totals]
    fewer = builder.sub(left, INT64(1))
    for value, first, after in zip([left, *totals], [steps] + [x] * sums, [fewer, *new]):
        value.add_incoming(first, before)
        value.add_incoming(after, loop)
    done = builder.append_basic_block("done")
    builder.cbranch(builder.icmp_signed(">", fewer, INT64(0)), loop, done)
    builder.position_at_end(done)
    total = new[0]
    for value in new[1:]:
        total = lanes.add(total, value)
    lanes.store(total, place)


@cache
def _make_loop(width: int, sums: int) -> Any:
    @vector_function(width)
    def chain(lanes, place, steps):
        """Writes a result, so that nothing is optimised away."""
        _chain(lanes, place, steps, sums)

    @numba.njit(parallel=True)
    def loop(places, distance, workers, steps):
        for worker in numba.prange(workers):
            chain(places + worker * distance, steps)

    return loop


@cache
def peak() -> float | None:
    """GFLOP/s of float32 multiply-adds with the threads in use; None without vector kernels."""
    if not ISA.width:
        return None
    sums = max(rows * vectors for vectors, rows in enumerate(ISA.rows, 1))
    workers, loop = threads(), _make_loop(ISA.width, sums)
    operands = np.ones((workers, 128), np.float32)
    best = np.inf
    for _ in range(REPEATS):
        operands.fill(0.5)
        start = time.perf_counter()
        loop(operands.ctypes.data, operands.strides[0], workers, STEPS)
        best = min(best, time.perf_counter() - start)
    return 2 * ISA.width * sums * STEPS * workers / best / 1e9


@cache
def _operands() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    a, b = rng.standard_normal((2, 1024, 1024)).astype(np.float32)
    return a, b


def fixed_product() -> float:
    """Seconds of CPU time, all threads together, of the same product of NumPy every time.

    To be timed in turns with something else: what slows the machine down slows both.
    """
    a, b = _operands()
    start = time.process_time()
    for _ in range(4):
        a @ b
    return time.process_time() - start
