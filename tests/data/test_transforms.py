"""Normalisation constants against the images they describe, and the settings' checks."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minires.data import NORMALISATIONS, Augment, cifar10, normalisation, normalise, shapes
from minires.errors import DataError, DTypeError, ShapeError

__all__: list[str] = []


@given(n=st.integers(1, 9), h=st.integers(1, 9), c=st.integers(1, 4), seed=st.integers(0, 99))
def test_measured_statistics_are_numpys(n: int, h: int, c: int, seed: int) -> None:
    images = np.random.default_rng(seed).integers(0, 256, (n, h, 5, c), np.uint8)
    mean, std = normalisation("dataset", images)
    assert mean.dtype == std.dtype == np.float32
    np.testing.assert_allclose(mean, (images / 255).mean(axis=(0, 1, 2)), rtol=1e-6)
    np.testing.assert_allclose(std, (images / 255).std(axis=(0, 1, 2)), rtol=1e-6)


def test_a_constant_channel_is_only_centred() -> None:
    images = np.full((2, 3, 3, 1), 51, np.uint8)
    mean, std = normalisation("dataset", images)
    np.testing.assert_allclose(normalise(images, mean, std), 0, atol=1e-6)


def test_the_other_kinds() -> None:
    gray = np.zeros((1, 2, 2, 1), np.uint8)
    assert normalisation("half")[0].tolist() == [0.5] * 3
    assert normalisation("half", gray)[1].tolist() == [0.5]
    assert normalisation("none", "cifar10")[0].tolist() == [0, 0, 0]
    assert normalisation("none")[1].tolist() == [1, 1, 1]
    np.testing.assert_allclose(normalisation("imagenet")[0], [0.485, 0.456, 0.406], rtol=1e-6)
    assert all(len(normalisation(kind, shapes("test", 20))[0]) == 3 for kind in NORMALISATIONS)


def test_published_constants_are_used_by_name() -> None:
    for name in ("cifar10", "cifar100"):
        mean, std = normalisation("dataset", name)
        assert ((mean > 0.4) & (mean < 0.52)).all()
        assert ((std > 0.2) & (std < 0.3)).all()


@pytest.mark.slow
def test_cifar10s_constants_are_those_of_its_images(real_cifar10_all: Path) -> None:
    images = cifar10(real_cifar10_all, "train").images
    for published, measured in zip(
        normalisation("dataset", "cifar10"), normalisation("dataset", images)
    ):
        np.testing.assert_allclose(published, measured, rtol=1e-6)


def test_wrong_arguments() -> None:
    with pytest.raises(
        ValueError, match=r"kind is 'zscore' but must be one of dataset, imagenet, half"
    ):
        normalisation("zscore")
    for nothing in (None, "mnist"):
        with pytest.raises(ValueError, match=r"'dataset' needs a data set or its images"):
            normalisation("dataset", nothing)
    with pytest.raises(DTypeError, match=r"images must be uint8 .* got float64"):
        normalisation("dataset", np.zeros((1, 2, 2, 3)))
    with pytest.raises(DataError, match=r"there are no images"):
        normalisation("dataset", np.zeros((0, 2, 2, 3), np.uint8))
    with pytest.raises(DTypeError, match=r"images must be uint8 .* got float32"):
        normalise(np.full((1, 2, 2, 3), np.nan, np.float32), [0] * 3, [1] * 3)
    with pytest.raises(ShapeError, match=r"images must be \(n, h, w, c\) .* got \(2, 2, 3\)"):
        normalise(np.zeros((2, 2, 3), np.uint8), [0] * 3, [1] * 3)


@pytest.mark.parametrize("name", ["crop", "cutout"])
def test_augment_refuses_negative_sizes(name: str) -> None:
    with pytest.raises(ValueError, match=rf"Augment: {name} is -1 but must be at least 0"):
        Augment(**{name: -1})


def test_augment_is_false_when_it_does_nothing() -> None:
    assert Augment()
    assert Augment(crop=0, flip=False, cutout=1)
    assert not Augment(crop=0, flip=False)
