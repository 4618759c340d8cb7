"""Datasets: checked when made, read-only afterwards, split without loss."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minires.data import Dataset, limit, only_classes, split_validation
from minires.errors import DataError, DTypeError, ShapeError

__all__: list[str] = []


def numbered(n: int) -> Dataset:
    """n images whose first two bytes count."""
    images = np.zeros((n, 2, 2, 3), np.uint8)
    images[:, 0, 0, 0], images[:, 0, 0, 1] = np.divmod(np.arange(n), 256)
    return Dataset(images, np.arange(n) % 3, ["a", "b", "c"], "numbered")


def numbers(dataset: Dataset) -> list[int]:
    """What the first two bytes say."""
    return (dataset.images[:, 0, 0, 0].astype(int) * 256 + dataset.images[:, 0, 0, 1]).tolist()


def test_indexing_gives_an_image_or_a_part() -> None:
    dataset = numbered(10)
    image, label = dataset[4]
    assert image.shape == (2, 2, 3)
    assert label == 1
    assert type(label) is int
    assert numbers(dataset[2:5]) == [2, 3, 4]
    assert numbers(dataset[np.array([7, 1])]) == [7, 1]
    assert numbers(dataset[np.arange(10) > 7]) == [8, 9]
    assert dataset[2:5].classes == ["a", "b", "c"]
    assert dataset[2:5].labels.dtype == np.int64


def test_it_cannot_be_changed() -> None:
    dataset = numbered(3)
    with pytest.raises(ValueError, match="read-only"):
        dataset.images[0] = 1
    with pytest.raises(ValueError, match="read-only"):
        dataset.labels[0] = 1
    with pytest.raises(AttributeError):
        dataset.name = "other"  # type: ignore[misc]


def test_making_it_leaves_the_callers_arrays_writeable() -> None:
    images, labels = np.zeros((2, 1, 1, 1), np.uint8), np.zeros(2, np.int64)
    Dataset(images, labels, ["a"], "mine")
    images[0], labels[0] = 5, 0


def test_bad_arrays_are_named() -> None:
    images, labels, classes = np.zeros((2, 4, 4, 3), np.uint8), np.array([0, 1]), ["a", "b"]
    with pytest.raises(DTypeError, match=r"mine: images must be uint8 .* got float64"):
        Dataset(np.full((2, 4, 4, 3), np.nan), labels, classes, "mine")
    with pytest.raises(DTypeError, match=r"mine: labels must be integers, got float64"):
        Dataset(images, labels / 2, classes, "mine")
    with pytest.raises(ShapeError, match=r"images must be \(n, h, w, c\), got shape \(4, 4, 3\)"):
        Dataset(images[0], labels, classes, "mine")
    with pytest.raises(ShapeError, match=r"labels must be \(2,\) .* got \(1,\)"):
        Dataset(images, labels[:1], classes, "mine")
    for wrong in (2, -1):
        with pytest.raises(DataError, match=rf"label {wrong} of image 1 must be 0 to 1"):
            Dataset(images, np.array([0, wrong]), classes, "mine")


def test_limit_takes_the_first() -> None:
    dataset = numbered(10)
    assert numbers(limit(dataset, 3)) == [0, 1, 2]
    assert len(limit(dataset, 99)) == 10
    assert limit(dataset, None) is dataset
    for count in (0, -1):
        with pytest.raises(ValueError, match=rf"count is {count} but must be at least 1"):
            limit(dataset, count)


@given(n=st.integers(1, 600), share=st.floats(0, 1, exclude_max=True), seed=st.integers(0, 2**40))
def test_a_split_loses_nothing_and_repeats_nothing(n: int, share: float, seed: int) -> None:
    dataset, count = numbered(n), int(share * n)
    train, validation = split_validation(dataset, count, seed)
    assert len(validation) == count
    assert sorted(numbers(train) + numbers(validation)) == list(range(n))
    assert numbers(split_validation(dataset, count, seed)[1]) == numbers(validation)


def test_a_split_depends_on_its_seed_and_takes_from_everywhere() -> None:
    dataset = numbered(1000)
    one, other = (numbers(split_validation(dataset, 100, seed)[1]) for seed in (0, 1))
    assert one != other
    assert min(one) < 100
    assert max(one) > 900


@pytest.mark.parametrize("count", [-1, 10, 11])
def test_a_split_leaves_something_to_train_on(count: int) -> None:
    with pytest.raises(ValueError, match=rf"count is {count} but must be 0 to 9"):
        split_validation(numbered(10), count, 0)


def test_only_some_classes() -> None:
    dataset = numbered(10)
    part = only_classes(dataset, [2, "a"])
    assert numbers(part) == [0, 2, 3, 5, 6, 8, 9]
    assert part.labels.tolist() == [1, 0, 1, 0, 1, 0, 1]
    assert part.classes == ["c", "a"]


@pytest.mark.parametrize("classes", [["d"], [3], [-1], [0, "a"], [], [0.5]])
def test_classes_that_there_are_not(classes: list) -> None:
    with pytest.raises(ValueError, match=r"only_classes: class.* must be"):
        only_classes(numbered(4), classes)
