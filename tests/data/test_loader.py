"""The loader: what it gives is a pure function of (seed, epoch, position), whoever prepares it."""

from __future__ import annotations

import gc
import threading
import time
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minires.data import Augment, Dataset, Loader, normalisation, shapes
from minires.errors import DataError
from minires.kernels import dispatch
from minires.kernels.dispatch import ran, reference
from tests.gpu.everywhere import TWIN

__all__: list[str] = []


@pytest.fixture(scope="module")
def pictures() -> Dataset:
    """103 shapes: a prime, so that the last batch is always short."""
    return shapes("train", 103)


def loader_threads() -> list[threading.Thread]:
    """Those that are alive."""
    return [thread for thread in threading.enumerate() if thread.name.startswith("minires-loader")]


def assert_same(one: Any, other: Any) -> None:
    """Equal batches, in equal number."""
    one, other = list(one), list(other)
    assert len(one) == len(other)
    for (images, labels), (images_2, labels_2) in zip(one, other):
        np.testing.assert_array_equal(images, images_2)
        np.testing.assert_array_equal(labels, labels_2)


@settings(max_examples=25)
@given(
    size=st.integers(1, 120),
    shuffle=st.booleans(),
    augment=st.sampled_from([None, Augment(), Augment(crop=0, flip=False, cutout=9)]),
    seed=st.integers(0, 2**63),
    epoch=st.integers(0, 1000),
    drop_last=st.booleans(),
    threads=st.integers(1, 5),
)
def test_threads_change_nothing(
    pictures: Dataset, size: int, epoch: int, threads: int, **how: Any
) -> None:
    if how["drop_last"]:
        size = min(size, len(pictures))
    alone, helped = (Loader(pictures, size, threads=t, **how) for t in (0, threads))
    alone.set_epoch(epoch)
    helped.set_epoch(epoch)
    expected = list(alone)
    assert len(expected) == len(alone) == len(helped)
    assert_same(helped, expected)
    assert_same(helped, expected)  # a second pass over the same epoch is the same
    start = len(alone) // 2
    helped.set_epoch(epoch, start)
    assert_same(helped, expected[start:])
    assert not loader_threads()


def test_an_epoch_has_every_image_once(pictures: Dataset) -> None:
    loader = Loader(pictures, 10, shuffle=True)
    orders = []
    for epoch in range(3):
        loader.set_epoch(epoch)
        assert sorted(loader.order(epoch)) == list(range(103))
        labels = np.concatenate([labels for _, labels in loader])
        np.testing.assert_array_equal(labels, pictures.labels[loader.order(epoch)])
        orders.append(loader.order(epoch).tolist())
    assert orders[0] != orders[1] != orders[2]
    assert Loader(pictures, 10, shuffle=True, seed=1).order(0).tolist() != orders[0]
    assert Loader(pictures, 10).order(5).tolist() == list(range(103))


def test_batches_are_the_normalised_images(pictures: Dataset) -> None:
    mean, std = normalisation("half", pictures)
    (images, labels), *rest = Loader(pictures, 64, mean=mean, std=std)
    assert images.dtype == np.float32
    assert labels.dtype == np.int64
    np.testing.assert_allclose(images, pictures.images[:64] / 127.5 - 1, atol=1e-6)
    assert [len(labels) for _, labels in rest] == [39]
    assert next(iter(Loader(pictures, 8, dtype=np.float64)))[0].dtype == np.float64


def test_the_default_normalisation_centres_the_set(pictures: Dataset) -> None:
    images = np.concatenate([images for images, _ in Loader(pictures, 50, dtype=np.float64)])
    np.testing.assert_allclose(
        images.mean(axis=(0, 1, 2)), 0, atol=1e-6
    )  # mean and std are float32
    np.testing.assert_allclose(images.std(axis=(0, 1, 2)), 1, atol=1e-6)


def test_augmentation_does_not_depend_on_the_batch_size(pictures: Dataset) -> None:
    small, large = (Loader(pictures, size, augment=Augment(cutout=8)) for size in (7, 103))
    np.testing.assert_array_equal(np.concatenate([x for x, _ in small]), next(iter(large))[0])


def test_epochs_augment_differently(pictures: Dataset) -> None:
    loader = Loader(pictures, 103, augment=Augment())
    first = next(iter(loader))[0]
    loader.set_epoch(1)
    assert (next(iter(loader))[0] != first).any(axis=(1, 2, 3)).sum() > 95


def test_length_and_drop_last(pictures: Dataset) -> None:
    assert len(Loader(pictures, 10)) == 11
    assert len(Loader(pictures, 10, drop_last=True)) == 10
    assert len(Loader(pictures, 103, drop_last=True)) == 1
    assert [len(k) for _, k in Loader(pictures, 50, drop_last=True)] == [50, 50]
    finished = Loader(pictures, 10)
    finished.set_epoch(0, start_batch=11)
    assert list(finished) == []


@pytest.mark.parametrize("threads", [0, 1, 3])
def test_an_error_reaches_the_consumer(pictures: Dataset, threads: int, monkeypatch: Any) -> None:
    loader = Loader(pictures, 10, threads=threads)
    honest = loader.batch

    def failing(indices: np.ndarray, epoch: int) -> Any:
        if 35 in indices:
            raise OSError("the disk is gone")
        return honest(indices, epoch)

    monkeypatch.setattr(loader, "batch", failing)
    batches = iter(loader)
    for _ in range(3):
        next(batches)
    with pytest.raises(OSError, match="the disk is gone") as caught:
        next(batches)
    assert any(entry.name == "failing" for entry in caught.traceback)  # where it happened
    assert not loader_threads()
    assert next(batches, "the end") == "the end"


@pytest.mark.parametrize("taken", [0, 1, 4])
def test_letting_go_ends_the_threads(pictures: Dataset, taken: int) -> None:
    batches = iter(Loader(pictures, 2, threads=3))
    for _ in range(taken):
        next(batches)
    assert len(loader_threads()) == (3 if taken else 0)
    del batches
    gc.collect()
    assert not loader_threads()


def test_a_break_ends_the_threads(pictures: Dataset) -> None:
    for _ in Loader(pictures, 2, threads=2):
        break
    gc.collect()
    assert not loader_threads()


def test_nobody_runs_far_ahead(pictures: Dataset, monkeypatch: Any) -> None:
    loader, made = Loader(pictures, 1, threads=2), []
    honest = loader.batch
    monkeypatch.setattr(loader, "batch", lambda i, e: made.append(i) or honest(i, e))
    batches = iter(loader)
    next(batches)
    seen = -1
    while len(made) != seen:  # until nothing moves any more
        seen = len(made)
        time.sleep(0.3)
    assert seen <= 1 + 2 * (2 + 1)  # taken, and a thread each two in the queue and one in hand
    del batches


def test_two_iterations_at_once_do_not_disturb_each_other(pictures: Dataset) -> None:
    loader = Loader(pictures, 10, shuffle=True, threads=2)
    expected = list(loader)
    pairs = list(zip(loader, loader))
    assert_same([one for one, _ in pairs], expected)
    assert_same([other for _, other in pairs], expected)


@pytest.mark.parametrize("threads", [0, 2])
def test_the_threads_know_which_kernels_the_caller_wants(
    pictures: Dataset, threads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dispatch, "UNCOMPILED", np.inf)
    loader = Loader(pictures, 20, augment=Augment(), threads=threads)
    with ran() as log:
        fast = list(loader)
    assert set(log) == {("augment_batch", TWIN)}
    with reference(), ran() as log:
        slow = list(loader)
    assert ("augment_batch", "reference") in log
    assert ("augment_batch", TWIN) not in log
    assert_same(fast, slow)


def test_an_empty_augment_is_none(pictures: Dataset) -> None:
    with ran() as log:
        next(iter(Loader(pictures, 4, augment=Augment(crop=0, flip=False))))
    assert {name for name, _ in log} == {"gather_batch"}


@pytest.mark.parametrize(("how", "error", "message"), [
    ({"batch_size": 0}, ValueError, r"batch_size is 0 but must be at least 1"),
    ({"threads": -1}, ValueError, r"threads is -1 but must be at least 0"),
    ({"mean": [0.5] * 3}, ValueError, r"mean and std go together"),
    ({"mean": [0.5], "std": [0.5]}, ValueError, r"mean and std must be \(3,\), got \(1,\), \(1,\)"),
    ({"batch_size": 104, "drop_last": True}, DataError, r"batch_size is 104 but .* at most 103"),
])  # fmt: skip
def test_wrong_arguments(pictures: Dataset, how: Any, error: Any, message: str) -> None:
    with pytest.raises(error, match=message):
        Loader(pictures, **({"batch_size": 10} | how))


def test_an_empty_set_is_an_error(pictures: Dataset) -> None:
    with pytest.raises(DataError, match=r"the data set shapes is empty"):
        Loader(pictures[:0], 10)


def test_wrong_epochs(pictures: Dataset) -> None:
    loader = Loader(pictures, 10)
    with pytest.raises(ValueError, match=r"epoch is -1 but must be at least 0"):
        loader.set_epoch(-1)
    with pytest.raises(ValueError, match=r"start_batch is 12 but must be 0 to 11"):
        loader.set_epoch(0, start_batch=12)
