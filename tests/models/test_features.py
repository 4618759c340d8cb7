"""The outputs of the stages: their strides, and that the classifier sees the last of them."""

from __future__ import annotations

import math

import numpy as np
import pytest

from minires import models
from minires.autograd import no_grad
from minires.functional import linear
from minires.models import ImageClassifier

__all__: list[str] = []

STAGES = {"imagenet": (4, 8, 16, 32), "cifar": (1, 2, 4, 8)}
THREE = (1, 2, 4)
WIDTHS = (16, 16, 32, 32)
RESNETS = [name for name in models.names() if name not in ("article_net", "whitened_resnet")]


def narrow(name: str, stem: str | None) -> ImageClassifier:
    """The network with few channels: widths of the right number of stages."""
    try:
        return models.build(name, 5, stem, widths=WIDTHS)
    except ValueError:
        return models.build(name, 5, stem, widths=WIDTHS[:3])


def stems(name: str) -> list[str | None]:
    """The stems to choose from; [None] where there is no choice."""
    try:
        models.build(name, 5, "imagenet", widths=WIDTHS)
    except ValueError:
        return [None]
    return ["imagenet", "cifar"]


CASES = [(name, stem) for name in RESNETS for stem in stems(name)]


@pytest.fixture
def images(rng: np.random.Generator) -> np.ndarray:
    """Sides that no stride divides."""
    return rng.standard_normal((1, 37, 22, 3)).astype(np.float32)


@pytest.mark.parametrize(("name", "stem"), CASES)
def test_strides(name: str, stem: str | None, images: np.ndarray):
    model = narrow(name, stem).eval()
    strides = STAGES[stem] if stem else THREE
    with no_grad():
        maps = model.features(images)
        sides = [(math.ceil(37 / stride), math.ceil(22 / stride)) for stride in strides]
        assert [one.shape[1:3] for one in maps] == sides
        assert [one.shape[0] for one in maps] == [1] * len(strides)
        logits = model(images).numpy()
        np.testing.assert_array_equal(model.head(maps[-1]).numpy(), logits)
        vectors = model.embed(images)
        assert vectors.shape == (1, model.fc.in_features)
        np.testing.assert_array_equal(
            linear(vectors, model.fc.weight, model.fc.bias).numpy(), logits
        )


def test_there_are_networks_of_all_kinds():
    assert len(RESNETS) == len(models.names()) - 2
    assert sum(stem == "imagenet" for _, stem in CASES) == 14
    assert sum(stem is None for _, stem in CASES) == 8


def test_gradients_flow_through_all_maps(images: np.ndarray):
    model = models.resnet20()
    total = sum((one.mean() for one in model.features(images)), start=0.0)
    total.backward()
    grads = {name: p.grad for name, p in model.named_parameters()}
    assert all(g is not None for name, g in grads.items() if not name.startswith("fc"))
    assert grads["fc.weight"] is None
