"""The buffer pool: recycling that never takes anything from a holder."""

from __future__ import annotations

import gc
import threading

import numpy as np
import pytest

from minires.kernels.memory import Pool, empty, set_threads, threads, workspace, zeros

__all__: list[str] = []

BIG = (1 << 16,)  # float32: 256 KiB


def test_a_dropped_block_is_used_again():
    pool = Pool()
    a = pool.empty(BIG, np.float32)
    address = a.ctypes.data
    del a
    assert pool.empty(BIG, np.float32).ctypes.data == address
    assert pool.fresh == 1


def test_a_view_keeps_the_block():
    pool = Pool()
    a = pool.empty(BIG, np.float32)
    view = a.reshape(256, 256)[3:5].T[1:]
    view[...] = 7
    del a
    gc.collect()
    b = pool.empty(BIG, np.float32)
    b.fill(0)
    assert (view == 7).all()
    assert pool.fresh == 2


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


def test_size_classes_waste_at_most_an_eighth_of_large_blocks():
    pool = Pool()
    for size in range(1 << 16, 1 << 22, 54_321):
        a = pool.empty((size,), np.uint8)
        assert size <= pool.in_use <= size * 1.13 + 4096
        del a


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


def test_old_shapes_are_let_go():
    pool = Pool()
    kept = [pool.empty((1 << 20,), np.uint8) for _ in range(8)]
    kept.clear()
    assert pool.idle == 8 << 20
    for _ in range(100):
        kept = [pool.empty((i << 16,), np.uint8) for i in (3, 5, 7)]
    assert pool.idle >= 8 << 20  # three blocks are no change of shapes
    for i in range(100):
        pool.empty(((9 + i) << 12,), np.uint8)
    assert pool.idle < 8 << 20


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
    assert pool.fresh <= 12


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
