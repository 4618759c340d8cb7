"""Names: wrappers' prefixes and repositories' habits lead to the model's names, and networks are
recognised."""

from __future__ import annotations

import numpy as np
import pytest

from minires import models
from minires.weights import to_file
from minires.weights.names import guess, match_names, without_prefix

__all__: list[str] = []

OURS = ["conv1.weight", "layer1.0.downsample.0.weight", "fc.weight", "fc.bias"]


@pytest.mark.parametrize("prefix", ["", "module.", "_orig_mod.", "module._orig_mod.", "model.net."])
def test_prefixes(prefix: str):
    theirs = [prefix + name for name in OURS]
    assert match_names(theirs, OURS) == dict(zip(theirs, OURS, strict=True))


def test_a_prefix_of_the_models_own_stays():
    names = ["module.a", "module.b"]
    assert without_prefix(names, ["module.a"]) == {"module.a": "module.a", "module.b": "module.b"}
    assert without_prefix(["module.a", "b"]) == {"module.a": "module.a", "b": "b"}
    assert without_prefix([]) == {}


def test_habits_of_repositories():
    theirs = ["conv1.weight", "layer1.0.shortcut.0.weight", "linear.weight", "linear.bias"]
    assert list(match_names(theirs, OURS).values()) == OURS
    assert match_names(OURS, theirs) == dict(zip(OURS, theirs, strict=True))


def test_a_name_is_given_once():
    both = ["linear.bias", "fc.bias", "shortcut.x", "other"]
    assert match_names(both, OURS) == {"fc.bias": "fc.bias"}


@pytest.mark.parametrize(
    ("name", "options", "found"),
    [
        ("resnet20", {}, "resnet20 for 10 classes"),
        ("resnet18", {"stem": "cifar"}, "resnet18 with the cifar stem for 10 classes"),
        ("plain18", {}, "plain18 with the "),
        ("article_net", {}, None),
    ],
)
def test_guesses(name: str, options: dict, found: str | None):
    model = models.build(name, 10, **options)
    state = {f"module.{n}": to_file(n, array) for n, array in model.state_dict().items()}
    guessed = guess(state)
    assert guessed == found if found is None else str(guessed).startswith(found)


def test_a_guess_survives_strange_names():
    names = ("conv1.weight", "bn1.weight", "layer1.0.bn1.weight", "fc.weight", "layer9.77.conv1.x")
    assert guess({name: np.zeros(()) for name in names}) is None
    assert guess({name: np.zeros((16, 1, 1, 1)) for name in names}) is None
