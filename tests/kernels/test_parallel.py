"""Chunks of work on threads."""

from __future__ import annotations

import numpy as np
import pytest

from minires.kernels.memory import threads
from minires.kernels.parallel import for_each

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
