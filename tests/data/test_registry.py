"""Data sets by name."""

from __future__ import annotations

import numpy as np
import pytest

from minires import data
from minires.data import dataset_names, load_dataset, shapes

__all__: list[str] = []


def test_names() -> None:
    assert dataset_names() == ["shapes", "cifar10", "cifar100", "folder"]
    with pytest.raises(
        ValueError, match=r"name is 'mnist' but must be one of shapes, cifar10, cifar100"
    ):
        load_dataset("mnist")


def test_shapes_by_name() -> None:
    test = load_dataset("shapes", split="test")
    np.testing.assert_array_equal(test.images, shapes("test").images)
    np.testing.assert_array_equal(load_dataset("shapes", None, "test", 30).images, test.images[:30])
    assert len(load_dataset("shapes", split="test", limit=99_999, download=True)) == 2000
    with pytest.raises(ValueError, match="n is 0 but must be at least 1"):
        load_dataset("shapes", limit=0)
    with pytest.raises(ValueError, match="split is 'val'"):
        load_dataset("shapes", split="val", limit=5)


def test_everything_promised_is_there() -> None:
    assert all(hasattr(data, name) for name in data.__all__)
