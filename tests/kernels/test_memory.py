"""The buffer pool: recycling that never takes anything from a holder."""

from __future__ import annotations

import gc
import threading

import numpy as np
import pytest

from minires.kernels.memory import Pool, address, empty, set_threads, threads, workspace, zeros

__all__: list[str] = []

BIG = (1 << 16,)  # float32: 256 KiB


def test_a_dropped_piece_is_used_again():
    pool = Pool()
    a = pool.empty(BIG, np.float32)
    place = address(a)
    del a
    assert address(pool.empty(BIG, np.float32)) == place
    assert pool.fresh == 1


def test_the_last_piece_of_a_size_comes_first():
    """Also with an idle piece of another size beside it, which it could have been joined with."""
    pool = Pool()
    kept = [pool.empty(BIG, np.float32), pool.empty((3, *BIG), np.float32)]
    places = [address(a) for a in kept]
    kept.clear()
    assert address(pool.empty(BIG, np.float32)) == places[0]
    assert address(pool.empty((3, *BIG), np.float32)) == places[1]


def test_a_view_keeps_the_piece():
    pool = Pool()
    a = pool.empty(BIG, np.float32)
    place, view = address(a), a.reshape(256, 256)[3:5].T[1:]
    view[...] = 7
    del a
    gc.collect()
    b = pool.empty(BIG, np.float32)
    b.fill(0)
    assert (view == 7).all()
    del view
    gc.collect()
    assert address(pool.empty(BIG, np.float32)) == place


def test_no_two_arrays_ever_overlap(rng):
    """Arrays of many sizes, kept and dropped at random, each filled with its own number."""
    pool, held = Pool(), {}
    for number in range(3000):
        a = pool.empty((int(rng.integers(1 << 13, 1 << 18)),), np.int32)
        a.fill(number)
        held[number] = a
        for old in rng.choice(list(held), size=min(len(held), int(rng.integers(0, 3)))):
            if old in held:
                assert (held.pop(old) == old).all()
    used = sum(-(-a.nbytes // 4096) * 4096 for a in held.values())
    del a
    assert pool.in_use == used
    assert all((a == number).all() for number, a in held.items())
    held.clear()
    assert pool.in_use == 0
    pool.trim()
    assert pool.total == 0


def test_memory_of_other_shapes_is_used_again():
    """Small arrays come out of a large one's memory, and a large one out of that of several."""
    pool = Pool()
    pool.empty((60 << 20,), np.uint8)
    kept = [pool.empty((5 << 20,), np.uint8) for _ in range(12)]
    assert pool.in_use == 60 << 20
    kept.clear()
    pool.empty((60 << 20,), np.uint8)
    assert pool.fresh == 1


def test_areas_double():
    pool = Pool()
    kept = [pool.empty((1 << 26,), np.uint8) for _ in range(8)]
    assert pool.fresh == 4
    assert pool.total == 8 << 26
    del kept[2:]
    pool.trim()
    assert pool.total == 2 << 26


@pytest.mark.parametrize("shape", [(), (3,), (0, 5), BIG, (300, 301), (1, 1 << 20)])
@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int32, np.uint8])
def test_arrays_are_aligned_contiguous_and_writable(shape, dtype):
    pool = Pool()
    pool.poison = True
    a = pool.empty(shape, dtype)
    assert (a.shape, a.dtype) == (shape, dtype)
    assert a.flags.c_contiguous
    assert a.flags.writeable
    if a.nbytes >= 1 << 15:
        assert a.ctypes.data % 64 == 0
    if a.dtype.kind == "f":
        assert np.isnan(a).all()


def test_a_repeated_step_takes_nothing_from_the_system():
    """Also when nothing of it is kept in between."""
    pool = Pool()

    def step() -> None:
        kept = [pool.empty((i << 19,), np.uint8) for i in range(1, 12)]
        kept.clear()
        pool.empty((13 << 19,), np.uint8)

    step()
    step()
    fresh = pool.fresh
    for _ in range(5):
        step()
    assert pool.fresh == fresh


def test_blocks_return_from_any_thread():
    pool = Pool()

    def work():
        for i in range(200):
            a = pool.empty((1 << 16, 1 + i % 3), np.uint8)
            a.fill(1)

    workers = [threading.Thread(target=work) for _ in range(4)]
    for w in workers:
        w.start()
    for w in workers:
        w.join()
    assert pool.in_use == 0
    assert pool.fresh == 1


def test_workspace_and_zeros():
    with workspace(BIG, np.float32) as a:
        a.fill(3)
    assert (zeros(BIG, np.float32) == 0).all()
    assert empty((2,), np.float64, like=np.ones(1)).shape == (2,)


def test_set_threads_checks_its_argument():
    before = threads()
    with pytest.raises(ValueError, match="count is 0 but must be 1 to"):
        set_threads(0)
    set_threads(1)
    assert threads() == 1
    set_threads(before)
