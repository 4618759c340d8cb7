"""Layouts: the same numbers give the same outputs on both sides, also behind a flattened map."""

from __future__ import annotations

import numpy as np
import pytest

from minires import nn
from minires.errors import DataError, ShapeError
from minires.weights import to_file, to_memory
from minires.weights.layout import file_shape, flattened_maps

__all__: list[str] = []


@pytest.mark.parametrize("shape", [(2, 3, 4, 5), (2, 3), (7,), (), (2, 3, 4), (0, 3, 1, 1)])
def test_round_trip(shape: tuple[int, ...], rng: np.random.Generator):
    memory = rng.normal(size=shape)
    file = to_file("x", memory)
    assert file.shape == file_shape(shape)
    assert file.flags.c_contiguous
    assert not np.shares_memory(file, memory)
    back = to_memory("x", file)
    assert back.flags.c_contiguous
    np.testing.assert_array_equal(back, memory)


def test_what_goes_where():
    file = np.arange(120).reshape(2, 3, 4, 5)  # (k, c, r, s)
    memory = to_memory("conv1.weight", file)
    assert memory.shape == (4, 5, 3, 2)
    assert memory[3, 4, 2, 1] == file[1, 2, 3, 4]
    np.testing.assert_array_equal(to_memory("fc.weight", file[0, 0]), file[0, 0].T)


def test_a_flattened_map_is_permuted(rng: np.random.Generator):
    images, weight = rng.normal(size=(2, 3, 4, 5)), rng.normal(size=(7, 60))  # (n, h, w, c)
    theirs = images.transpose(0, 3, 1, 2).reshape(2, -1) @ weight.T
    memory = to_memory("fc.weight", weight, flattened_from=(3, 4, 5))
    np.testing.assert_allclose(images.reshape(2, -1) @ memory, theirs)
    np.testing.assert_array_equal(to_file("fc.weight", memory, flattened_from=(3, 4, 5)), weight)


def test_a_map_that_does_not_fit():
    for convert in (to_memory, to_file):
        with pytest.raises(ShapeError, match=r"fc: shape \(4, 5\) does not fit flattened_from="):
            convert("fc", np.zeros((4, 5)), flattened_from=(2, 2, 2))


def test_flattened_layers_of_models():
    def net(*layers: nn.Module) -> nn.Sequential:
        return nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), *layers)

    declared = nn.Linear(32, 4, flattened_from=(2, 2, 8))
    assert flattened_maps(net(nn.Flatten(), nn.Dropout(0.5), declared, nn.Linear(4, 2))) == {
        "4.weight": (2, 2, 8)
    }
    assert flattened_maps(declared) == {"weight": (2, 2, 8)}
    assert flattened_maps(net(nn.GlobalAvgPool2d(), nn.Flatten(), nn.Linear(8, 2))) == {}
    assert flattened_maps(net(nn.Flatten(channels_first=True), nn.Linear(32, 2))) == {}
    assert flattened_maps(object()) == {}
    for undeclared in (
        net(nn.Flatten(), nn.Linear(32, 2)),
        net(nn.Sequential(nn.Flatten(), nn.Dropout(0.1)), nn.Sequential(nn.Linear(32, 2))),
        nn.Sequential(nn.Flatten(), nn.Linear(32, 2)),
    ):
        with pytest.raises(DataError, match=r"layer .* \(Linear, 32 inputs\) follows a Flatten"):
            flattened_maps(undeclared)
