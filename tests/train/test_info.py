"""The machine, and what networks consist of."""

from __future__ import annotations

import json

import pytest

from minires import models, nn
from minires.kernels import amx, bf16
from minires.kernels.isa import ISA
from minires.kernels.plan import choose_convolution
from minires.train import ConfigError, describe_model, describe_plan, describe_system

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


@pytest.mark.parametrize("name", ["resnet18", "resnet20", "resnext50_32x4d", "preact_resnet18"])
def test_the_plan_has_every_convolution_with_what_the_kernels_would_do(name):
    found = describe_plan(name, (64, 32, 32))
    convolutions = {
        path: module
        for path, module in models.build(name, stem="cifar").named_modules()
        if isinstance(module, nn.Conv2d)
    }
    assert [layer["name"] for layer in found["layers"]] != []
    assert {layer["name"] for layer in found["layers"]} == set(convolutions)
    for layer in found["layers"]:
        conv = convolutions[layer["name"]]
        assert layer["input"][3] == conv.in_channels
        pad = (layer["weight"][0] // 2,) * 2
        expected = choose_convolution(
            tuple(layer["input"]), tuple(layer["weight"]), tuple(layer["stride"]), pad, (1, 1),
            conv.groups, "float32",
        )  # fmt: skip
        assert layer["algorithm"] == expected
    json.dumps(found)


@pytest.mark.skipif(not ISA.width, reason="plain code has no vector kernels")
def test_the_plan_depends_on_the_batch():
    algorithms = [
        [layer["algorithm"] for layer in describe_plan("resnet20", (n, 32, 32))["layers"]]
        for n in (1, 128)
    ]
    assert algorithms[0] != algorithms[1]
    assert "winograd" in algorithms[1]


@pytest.mark.skipif(not bf16.AVAILABLE, reason="this CPU has no AVX512_BF16")
def test_the_plan_depends_on_the_precision():
    plain = describe_plan("resnet18")["layers"]
    found = describe_plan("resnet18", operands="bf16")
    assert found["precision"] == "bf16"
    changed = {
        layer["name"]: layer["algorithm"]
        for layer, before in zip(found["layers"], plain, strict=True)
        if layer["algorithm"] != before["algorithm"]
    }
    assert changed["layer2.0.conv1"] in ("direct", "tiled")
    assert ("layer3.1.conv2" in changed) == amx.available()
    assert "layer1.0.conv1" not in changed


def test_the_plan_refuses_precisions(monkeypatch):
    monkeypatch.setattr(bf16, "AVAILABLE", False)
    with pytest.raises(ConfigError, match=r"--precision bf16: .*no AVX512_BF16"):
        describe_plan("resnet20", operands="bf16")
    with pytest.raises(ConfigError, match=r"--precision: unknown value 'half'"):
        describe_plan("resnet20", operands="half")


def test_the_plan_counts_multiplications_and_knows_stems():
    stem = describe_plan("resnet50", (2, 64, 96))["layers"][0]
    assert (stem["weight"], stem["stride"]) == ([7, 7, 3, 64], [2, 2])
    assert stem["multiplications"] == 2 * 32 * 48 * 7 * 7 * 3 * 64
    small = describe_plan("resnet50", (2, 32, 32))["layers"][0]
    assert (small["weight"], small["stride"]) == ([3, 3, 3, 64], [1, 1])
    with pytest.raises(ConfigError, match=r"--model: .*resnet-18"):
        describe_plan("resnet-18")
