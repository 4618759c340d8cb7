"""Names: wrappers' prefixes and repositories' habits lead to the model's names, and networks are
recognised."""

from __future__ import annotations

import re
from collections.abc import Callable

import numpy as np
import pytest

from minires import models, nn
from minires.weights import to_file
from minires.weights.names import Guess, guess, match_names, without_prefix

__all__: list[str] = []

OURS = ["conv1.weight", "layer1.0.downsample.0.weight", "fc.weight", "fc.bias"]


PREFIXED = ["", "module.", "_orig_mod.", "module._orig_mod.", "model.net.", "encoder."]


@pytest.mark.parametrize("prefix", PREFIXED)
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


def pytorch_cifar100(name: str) -> str:
    """A name of ours as weiaicunzai's repository has it."""
    parts = name.split(".")
    if parts[0] in ("conv1", "bn1"):
        return f"conv1.{'01'[parts[0] == 'bn1']}.{parts[1]}"
    if parts[0].startswith("layer"):
        parts[0] = f"conv{int(parts[0][-1]) + 1}_x"
        if parts[2] == "downsample":
            parts[2] = "shortcut"
        else:
            index = 3 * int(parts[2][-1]) - 3 + parts[2].startswith("bn")
            parts[2] = f"residual_function.{index}"
    return ".".join(parts)


def wide_resnet_pytorch(name: str) -> str:
    """A name of ours as xternalz's repository has it."""
    name = re.sub(r"^layer(\d)\.", r"block\1.layer.", name)
    return re.sub(r"^bn\.", "bn1.", name.replace("downsample.0.", "convShortcut."))


@pytest.mark.parametrize(
    ("model", "renamed"),
    [
        ("resnet18", pytorch_cifar100),
        ("resnet50", pytorch_cifar100),
        ("wide_resnet16_2", wide_resnet_pytorch),
        ("resnet18", lambda n: "module." + n.replace("downsample", "shortcut")),
    ],
)
def test_whole_networks_of_other_repositories(model: str, renamed: Callable[[str], str]):
    with nn.init.skip():
        state = models.build(model, 10, "cifar").state_dict()
    theirs = {renamed(name): name for name in state}
    assert len(theirs) == len(state)
    assert match_names(theirs, state) == theirs
    if model == "resnet18":
        file = {other: to_file(name, state[name]) for other, name in theirs.items()}
        assert guess(file) == Guess("resnet18", 10, "cifar")


def test_a_name_is_given_once():
    both = ["linear.bias", "fc.bias", "shortcut.x", "other"]
    assert match_names(both, OURS) == {"fc.bias": "fc.bias"}


@pytest.mark.parametrize(
    ("name", "options", "found"),
    [
        ("resnet20", {}, Guess("resnet20", 10)),
        ("resnet56", {"shortcut": "B"}, Guess("resnet56", 10, options={"shortcut": "B"})),
        ("resnet18", {"stem": "cifar"}, Guess("resnet18", 10, "cifar")),
        ("plain18", {"stem": "imagenet"}, Guess("plain18", 10, "imagenet")),
        ("resnext50_32x4d", {"stem": "imagenet"}, Guess("resnext50_32x4d", 10, "imagenet")),
        ("wide_resnet50_2", {"stem": "imagenet"}, Guess("wide_resnet50_2", 10, "imagenet")),
        ("article_net", {}, None),
        ("preact_resnet18", {"stem": "cifar"}, None),
        ("wide_resnet16_2", {}, None),
    ],
)
def test_guesses(name: str, options: dict, found: Guess | None):
    with nn.init.skip():
        model = models.build(name, 10, **options)
    state = {f"module.{n}": to_file(n, array) for n, array in model.state_dict().items()}
    assert guess(state) == found
    if found is not None:
        models.build(found.model, 10, found.stem, **found.options)


def test_a_guess_reads_well():
    assert str(Guess("resnet18", 10, "cifar")) == "resnet18 with the cifar stem for 10 classes"
    assert str(Guess("resnet20", None)) == "resnet20"


def test_a_guess_survives_strange_names():
    names = ("conv1.weight", "bn1.weight", "layer1.0.bn1.weight", "fc.weight", "layer9.77.conv1.x")
    assert guess({name: np.zeros(()) for name in names}) is None
    assert guess({name: np.zeros((16, 1, 1, 1)) for name in names}) is None
