"""Threads for kernels built on BLAS products: each runs whole chunks, BLAS stays on one.

A product that BLAS spreads over threads meets at a barrier every few milliseconds, between two
parallel loops that meet at barriers of their own. Here a chunk of images is gathered, multiplied
and stored by one thread without meeting anybody. (Kernels that are plain loops use Numba's `prange`
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

from .memory import threads

__all__ = ["for_each", "product"]

# Multiplications of a product that one thread does in less than a millisecond. BLAS would wake its
# own threads for it, and these then wait some 30 ms in a busy loop, on the cores of the kernels.
SMALL = 1 << 24


@cache
def _workers(count: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(count, thread_name_prefix="minires")


@cache
def _blas() -> ThreadpoolController:
    return ThreadpoolController()


def _one_blas_thread() -> Any:
    return _blas().limit(limits=1, user_api="blas")


def product(a: Any, b: Any) -> Any:
    """a @ b for a (…, m) and b (m, k), arrays of NumPy or CuPy; a small one on one thread."""
    if isinstance(a, np.ndarray) and a.size * b.shape[-1] <= SMALL:
        with _one_blas_thread():
            return a @ b
    return a @ b


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
