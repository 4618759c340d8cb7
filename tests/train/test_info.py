"""The machine, and what networks consist of."""

from __future__ import annotations

import json

import pytest

from minires import models
from minires.train import ConfigError, describe_model, describe_system

__all__: list[str] = []


def test_the_system():
    found = describe_system()
    assert {"minires", "python", "numpy", "numba", "threads", "blas", "cupy", "cuda"} <= set(found)
    assert found["threads"] >= 1
    json.dumps(found)


def test_a_network_lists_every_parameter():
    found = describe_model("resnet18", classes=7, stem="imagenet")
    model = models.build("resnet18", 7, "imagenet")
    assert found["parameters"] == sum(p.size for p in model.parameters())
    assert sum(layer["parameters"] for layer in found["layers"]) == found["parameters"]
    stem = found["layers"][0]
    assert (stem["name"], stem["shapes"]) == ("conv1", {"weight": [7, 7, 3, 64]})


def test_unknown_networks_and_stems():
    with pytest.raises(ConfigError, match=r"--model: .*resnet-18"):
        describe_model("resnet-18")
    with pytest.raises(ConfigError, match=r"--model: .*stem"):
        describe_model("resnet20", stem="imagenet")
