"""Finding, saving and loading what hangs on a tree of modules."""

from __future__ import annotations

import copy

import numpy as np
import pytest

import minires.functional as F
from minires import nn
from minires.errors import DTypeError
from minires.tensor import tensor

__all__: list[str] = []


class Net(nn.Module):
    def __init__(self) -> None:
        self.scale = nn.Parameter(np.ones(1, np.float32))
        self.body = nn.Sequential(nn.Conv2d(3, 4, 3, bias=False), nn.BatchNorm2d(4), nn.ReLU())
        self.register_buffer("steps", np.zeros(2, np.int64))
        self.fc = nn.Linear(4, 2)

    def forward(self, x):
        return self.fc(F.global_avg_pool2d(self.body(x))) * self.scale


PARAMETERS = ["scale", "body.0.weight", "body.1.weight", "body.1.bias", "fc.weight", "fc.bias"]
STATISTICS = [f"body.1.{name}" for name in ("running_mean", "running_var", "num_batches_tracked")]


def test_names_follow_the_attributes():
    net = Net()
    assert [name for name, _ in net.named_parameters()] == PARAMETERS
    assert [name for name, _ in net.named_buffers()] == ["steps", *STATISTICS]
    paths = ["", "body", "body.0", "body.1", "body.2", "fc"]
    assert [name for name, _ in net.named_modules()] == paths
    assert [type(child).__name__ for child in net.children()] == ["Sequential", "Linear"]
    assert len(list(net.parameters())) == len(PARAMETERS)


def test_state_dict_lists_a_module_before_its_children():
    order = ["scale", "steps", *PARAMETERS[1:4], *STATISTICS, *PARAMETERS[4:]]
    assert list(Net().state_dict()) == order


def test_shared_parts_are_trained_once_and_saved_under_both_names():
    net = nn.Sequential(layer := nn.Linear(2, 2), layer)
    assert [name for name, _ in net.named_parameters()] == ["0.weight", "0.bias"]
    assert len(list(net.modules())) == 2
    assert list(net.state_dict()) == ["0.weight", "0.bias", "1.weight", "1.bias"]


def test_state_dict_copies():
    net = Net()
    state = net.state_dict()
    state["fc.weight"][...] = 7
    state["body.1.running_mean"][...] = 7
    assert not (net.fc.weight.array == 7).any()
    assert not (net.body[1].running_mean == 7).any()


def test_round_trip_writes_into_the_same_memory(rng):
    one, other = Net(), Net()
    one(rng.standard_normal((2, 5, 5, 3), np.float32))
    arrays = [p.array for p in other.parameters()]
    versions = [p.version for p in other.parameters()]
    other.load_state_dict(one.state_dict())
    for (name, a), b in zip(one.state_dict().items(), other.state_dict().values(), strict=True):
        np.testing.assert_array_equal(a, b, err_msg=name)
        assert a.dtype == b.dtype
    assert all(p.array is a for p, a in zip(other.parameters(), arrays, strict=True))
    assert all(p.version > v for p, v in zip(other.parameters(), versions, strict=True))


def test_loading_casts_and_takes_tensors():
    layer = nn.Linear(2, 1, bias=False)
    layer.load_state_dict({"weight": tensor([[1.0], [2.0]], dtype=np.float64)})
    np.testing.assert_array_equal(layer.weight.numpy(), np.array([[1], [2]], np.float32))


def test_mismatches_are_all_named_and_change_nothing():
    net = Net()
    before, state = net.state_dict(), Net().state_dict()
    state["linear.weight"] = state.pop("fc.weight")
    state["body.0.weight"] = np.zeros((1, 1, 3, 4), np.float32)
    with pytest.raises(ValueError, match=r"Net\.load_state_dict") as caught:
        net.load_state_dict(state)
    assert str(caught.value) == (
        "Net.load_state_dict: missing: fc.weight (found linear.weight); unexpected: linear.weight; "
        "other shapes: body.0.weight is (1, 1, 3, 4) but must be (3, 3, 3, 4)"
    )
    with pytest.raises(ValueError, match="other shapes"):
        net.load_state_dict(state, strict=False)
    for name, value in net.state_dict().items():
        np.testing.assert_array_equal(value, before[name])


def test_not_strict_loads_what_fits():
    net, state = Net(), Net().state_dict()
    del state["scale"]
    state["other"] = np.zeros(1)
    assert net.load_state_dict(state, strict=False) == (["scale"], ["other"], [])
    np.testing.assert_array_equal(net.fc.weight.numpy(), state["fc.weight"])


def test_old_files_without_num_batches_tracked_load():
    state = Net().state_dict()
    del state["body.1.num_batches_tracked"]
    assert Net().load_state_dict(state) == ([], [], [])


def test_another_networks_state_is_refused_in_one_bearable_line():
    many = {f"block{i}.weight": np.zeros(1) for i in range(500)}
    with pytest.raises(ValueError, match=r"block19\.weight and 480 more$") as caught:
        Net().load_state_dict(many)
    assert "\n" not in str(caught.value)


def test_train_eval_and_apply_reach_every_module():
    net, seen = Net(), []
    assert net.eval() is net
    assert not any(module.training for module in net.modules())
    assert all(module.training for module in net.train().modules())
    assert net.apply(lambda module: seen.append(type(module).__name__)) is net
    assert seen == ["Conv2d", "BatchNorm2d", "ReLU", "Sequential", "Linear", "Net"]


def test_gradients_freeze_and_vanish():
    net = Net()
    net.body.requires_grad_(False)
    net(np.ones((2, 5, 5, 3), np.float32)).sum().backward()
    with_gradient = [name for name, p in net.named_parameters() if p.grad is not None]
    assert with_gradient == ["scale", "fc.weight", "fc.bias"]
    net.zero_grad()
    assert all(p.grad is None for p in net.parameters())


def test_to_converts_floats_only():
    net = Net().to(np.float64)
    assert {p.dtype for p in net.parameters()} == {np.dtype(np.float64)}
    assert net.body[1].running_mean.dtype == np.float64
    assert net.steps.dtype == np.int64
    assert net(np.ones((2, 5, 5, 3))).dtype == np.float64
    assert net.to("cpu") is net
    with pytest.raises(
        DTypeError, match=r"Net\.to: 'gpu' is neither float32 or float64 nor a device"
    ):
        net.to("gpu")
    with pytest.raises(DTypeError, match="neither float32 or float64"):
        net.to(np.float16)


def test_deepcopy_is_independent():
    net = Net()
    twin = copy.deepcopy(net)
    twin.fc.weight.assign(0)
    assert (net.fc.weight.array != 0).any()


def test_repr_shows_the_tree():
    assert repr(Net()) == (
        "Net(\n"
        "  (body): Sequential(\n"
        "    (0): Conv2d(3, 4, kernel_size=(3, 3), bias=False)\n"
        "    (1): BatchNorm2d(4)\n"
        "    (2): ReLU()\n"
        "  )\n"
        "  (fc): Linear(4, 2)\n"
        ")"
    )


def test_a_module_without_forward_says_so():
    class Empty(nn.Module):
        pass

    with pytest.raises(NotImplementedError, match="Empty has no forward"):
        Empty()(1)


def test_containers():
    layers = nn.ModuleList([nn.Linear(2, 2), nn.Linear(2, 2)])
    layers.append(nn.Identity())
    assert len(layers) == 3
    assert isinstance(layers[-1], nn.Identity)
    assert [name for name, _ in layers.named_parameters()][-1] == "1.bias"
    with pytest.raises(TypeError, match="Sequential: expected a Module but got list"):
        nn.Sequential([nn.Identity()])  # type: ignore[arg-type]
