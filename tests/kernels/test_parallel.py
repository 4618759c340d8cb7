"""Chunks of work on threads."""

from __future__ import annotations

import numpy as np
import pytest

from minires.kernels import parallel
from minires.kernels.memory import threads
from minires.kernels.parallel import for_each, product

__all__: list[str] = []


def test_every_chunk_runs_once():
    seen = np.zeros(50, int)

    def work(i: int) -> None:
        seen[i] += 1

    for_each(work, 50)
    assert (seen == 1).all()
    for_each(work, 0)


def test_the_first_error_is_raised():
    def work(i: int) -> None:
        if i == 3:
            raise ValueError(f"chunk {i}")

    with pytest.raises(ValueError, match="chunk 3"):
        for_each(work, 8)


def test_the_callers_error_state_holds_on_the_threads():
    x = np.zeros(max(2, threads()))
    with np.errstate(all="ignore"):
        for_each(lambda i: x[i : i + 1].__itruediv__(0.0), x.size)
    assert np.isnan(x).all()
    with np.errstate(all="raise"), pytest.raises(FloatingPointError):
        for_each(lambda i: np.zeros(1).__itruediv__(0.0), x.size)


def blas_threads() -> set[int]:
    """The numbers of threads that the loaded BLAS libraries are set to."""
    found = parallel._blas().select(user_api="blas").info()
    return {int(library["num_threads"]) for library in found}


@pytest.mark.parametrize("shape", [(4, 3, 5), (300, 40, 70), (70, 40, 300), (2, 150, 40, 70)])
def test_a_product_is_the_same_on_any_threads(rng, monkeypatch, thread_counts, shape):
    monkeypatch.setattr(parallel, "SMALL", 300 * 40 * 70 // 3)
    *rows, m, k = shape
    a, b = rng.standard_normal((*rows, m)), rng.standard_normal((k, m)).T
    expected = np.einsum("...m,mk->...k", a, b)
    found: list[np.ndarray] = []
    for count in thread_counts:
        monkeypatch.setattr(parallel, "threads", lambda count=count: count)
        found.append(product(a, b))
        np.testing.assert_allclose(found[-1], expected)
        np.testing.assert_array_equal(found[-1], found[0])


def test_a_product_leaves_blas_to_one_thread(rng, monkeypatch):
    monkeypatch.setattr(parallel, "TINY", 100)
    monkeypatch.setattr(parallel, "SMALL", 1000)
    before, seen = blas_threads(), []
    matmul = np.matmul

    def watch(*args, **kwargs):
        seen.append(blas_threads())
        return matmul(*args, **kwargs)

    monkeypatch.setattr(parallel.np, "matmul", watch)
    a, b = rng.standard_normal((2, 20)), rng.standard_normal((20, 700))
    np.testing.assert_allclose(product(a, b), a @ b)
    assert seen == [{1}] * 5  # 700 // NARROW chunks
    assert blas_threads() == before
