"""Tasks that threads take as they can: each once, and the chunks of a part in their order."""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
import pytest

import minires as mr
from minires.kernels.tasks import chunks, runs, share, share_runs, tasks

__all__: list[str] = []

pytestmark = pytest.mark.skipif(
    numba.config.DISABLE_JIT,  # type: ignore[attr-defined]
    reason="atomic instructions exist in compiled code only",
)

WORKERS = 1, 2, 3, 7


@numba.njit
def _list_chunks(count: Any, workers: Any, worker: Any, size: Any) -> Any:
    """What one worker gets when the others take nothing."""
    return [(first, last) for first, last in chunks(share(count, workers), worker, size)]


@numba.njit
def _list_runs(parts: Any, count: Any, workers: Any) -> Any:
    return [(part, first, last) for part, first, last in runs(share_runs(parts, count), workers)]


@numba.njit(parallel=True)
def _count_tasks(done: Any, work: Any, workers: Any) -> Any:
    """Adds 1 to a task's number when it is done; the tasks differ in length."""
    left = share(len(done), workers)
    for worker in numba.prange(workers):
        for task in tasks(left, worker):
            total = 0.0
            for i in range(work[task]):
                total += np.sqrt(i + total)
            done[task] += 1 if total >= 0 else 0


@numba.njit(parallel=True)
def _log_runs(log: Any, lengths: Any, work: Any, workers: Any) -> Any:
    """Appends the chunks of each part to its line, without a lock."""
    left = share_runs(len(log), log.shape[1])
    for _worker in numba.prange(workers):
        for part, first, last in runs(left, workers):
            for chunk in range(first, last):
                total = 0.0
                for i in range(work[part]):
                    total += np.sqrt(i + total)
                log[part, lengths[part]] = chunk
                lengths[part] += 1 if total >= 0 else 0


@pytest.mark.parametrize("workers", WORKERS)
@pytest.mark.parametrize("count", [0, 1, 2, 5, 12, 100])
@pytest.mark.parametrize("size", [1, 4, 12])
def test_one_worker_does_what_the_others_leave(count: int, workers: int, size: int) -> None:
    for worker in range(workers):
        found = _list_chunks(count, workers, worker, size)
        ranges = [range(first, last) for first, last in found]
        assert sorted(i for r in ranges for i in r) == list(range(count))
        assert all(0 < len(r) <= size for r in ranges)
        own = worker * count // workers
        if own < (worker + 1) * count // workers:
            assert ranges[0].start == own


@pytest.mark.parametrize("workers", WORKERS)
def test_every_task_is_done_once(workers: int, thread_counts: Any) -> None:
    rng = np.random.default_rng(workers)
    mr.set_threads(min(workers, mr.threads()))
    for count in (0, 1, 2, 3, 50, 257):
        done = np.zeros(count, np.int64)
        _count_tasks(done, rng.integers(0, 20_000, count), workers)
        assert (done == 1).all()


@pytest.mark.parametrize("workers", WORKERS)
@pytest.mark.parametrize("parts", [1, 2, 4, 16])
@pytest.mark.parametrize("count", [1, 2, 3, 10, 41])
def test_runs_of_one_worker(parts: int, count: int, workers: int) -> None:
    found, done = _list_runs(parts, count, workers), [0] * parts
    for part, first, last in found:
        assert first == done[part] < last
        done[part] = last
    assert done == [count] * parts
    if workers == 1:
        assert len(found) == parts
    longest = max(last - first for _, first, last in found)
    assert workers == 1 or longest <= -(-parts * count // (2 * workers))
    if workers > 1 and parts > 1:
        assert found[-1][2] - found[-1][1] == 1, "the last run is short"


@pytest.mark.parametrize("workers", WORKERS)
def test_the_chunks_of_a_part_follow_each_other(workers: int, thread_counts: Any) -> None:
    rng = np.random.default_rng(workers)
    mr.set_threads(min(workers, mr.threads()))
    for parts in (1, 2, 4, 16) * 5:
        log, lengths = np.full((parts, 30), -1), np.zeros(parts, np.int64)
        _log_runs(log, lengths, rng.integers(0, 3000, parts), workers)
        assert (lengths == 30).all()
        assert (log == np.arange(30)).all()
