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


class Watched(np.ndarray):
    """An array that notes on how many threads BLAS multiplies it."""

    seen: set[int]

    def __matmul__(self, other):
        self.seen = blas_threads()
        return np.asarray(self) @ other


@pytest.mark.parametrize("m", [3, 40])
def test_a_small_product_is_left_to_one_thread(rng, monkeypatch, m):
    monkeypatch.setattr(parallel, "SMALL", 4 * 3 * 5)
    a, b = rng.standard_normal((4, m)).view(Watched), rng.standard_normal((m, 5))
    before = blas_threads()
    np.testing.assert_allclose(product(a, b), np.einsum("im,mk->ik", np.asarray(a), b))
    assert a.seen == ({1} if m == 3 else before)
    assert blas_threads() == before
