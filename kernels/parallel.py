"""Threads for kernels built on BLAS products: each runs whole chunks, BLAS stays on one.

A product that BLAS spreads over threads meets at a barrier every few milliseconds, between two
parallel loops that meet at barriers of their own. Here a chunk of images is gathered, multiplied
and stored by one thread without meeting anybody. (Compiled loops use Numba's `prange` and `tasks`
instead.)
"""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from functools import cache
from typing import Any

import numpy as np
from threadpoolctl import ThreadpoolController

from .memory import empty, threads

__all__ = ["for_each", "product"]

TINY = 1 << 18  # multiplications of a product that no BLAS wakes its threads for
SMALL = 1 << 23  # those that are not worth a second thread
NARROW = 128  # rows or columns of a product's chunk: fewer, and BLAS packs more than it multiplies


@cache
def _workers(count: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(count, thread_name_prefix="minires")


@cache
def _blas() -> ThreadpoolController:
    return ThreadpoolController()


def _one_blas_thread() -> Any:
    return _blas().limit(limits=1, user_api="blas")


os.register_at_fork(after_in_child=_workers.cache_clear)  # a child process has none of the threads


def for_each(work: Callable[[int], None], count: int) -> None:
    """Call work(0) … work(count - 1) on `threads()` threads, in no particular order.

    `work` must release the GIL most of the time and write to places of its own; it must not start a
    parallel Numba loop. The first exception is raised here.
    """
    with _one_blas_thread():
        workers = min(threads(), count)
        if workers <= 1:
            for i in range(count):
                work(i)
        else:
            contexts = [copy_context() for _ in range(count)]  # the caller's np.errstate goes along
            list(_workers(workers).map(lambda c, i: c.run(work, i), contexts, range(count)))


def product(a: Any, b: Any) -> Any:
    """a @ b for a (…, m) and b (m, k), arrays of NumPy or CuPy: a large one in chunks of its rows
    or columns. (The threads of a BLAS wait some 30 ms in a busy loop when they have multiplied, on
    the cores of the next kernels.)
    """
    if not isinstance(a, np.ndarray) or a.size * b.shape[-1] <= TINY:
        return a @ b
    rows, k = a.size // a.shape[-1], b.shape[-1]
    chunks = min(a.size * k // SMALL, max(rows, k) // NARROW)
    if chunks <= 1:
        with _one_blas_thread():
            return a @ b
    a, y = a.reshape(rows, -1), empty((*a.shape[:-1], k), np.result_type(a, b))
    out, longest = y.reshape(rows, k), max(rows, k)

    def multiply(i: int) -> None:
        part = slice(i * longest // chunks, (i + 1) * longest // chunks)
        if rows >= k:
            np.matmul(a[part], b, out=out[part])
        else:
            np.matmul(a, b[:, part], out=out[:, part])

    for_each(multiply, chunks)
    return y
