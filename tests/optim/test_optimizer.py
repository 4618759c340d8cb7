"""Optimisers: PyTorch's steps to the last digits, groups, saved state, refusals."""

from __future__ import annotations

import json
import re
from typing import Any

import numpy as np
import pytest

import minires as mr
from minires import nn, optim
from minires.errors import DTypeError, GraphError, ShapeError
from minires.kernels.dispatch import ran, reference
from tests import tolerances
from tests.gpu.everywhere import TWIN
from tests.reference import optimisers
from tests.reference.store import Reference

__all__: list[str] = []

STORED = Reference("optim")


def make(kind: str, options: dict[str, Any], dtype: Any) -> tuple[dict[str, nn.Parameter], Any]:
    params = {n: nn.Parameter(optimisers.begin(n).astype(dtype)) for n in optimisers.SHAPES}
    groups = [
        {"params": [params["weight"]]},
        {"params": [params["bias"], params["scale"]], "weight_decay": 0.0},
    ]
    return params, getattr(optim, kind)(groups, **options)


def run(kind: str, options: dict[str, Any], dtype: Any) -> dict[str, np.ndarray]:
    params, optimizer = make(kind, options, dtype)

    def set_gradient(name: str, g: Any) -> None:
        params[name].grad = None if g is None else g.astype(dtype)

    return optimisers.trajectory(optimizer, set_gradient, lambda name: params[name].numpy())


@pytest.mark.parametrize(
    ("dtype", "tolerance"),
    [(np.float64, tolerances.ROUNDINGS64), (np.float32, tolerances.FLOAT32)],
)
@pytest.mark.parametrize("case", optimisers.CASES)
def test_steps_are_pytorchs(case: str, dtype: Any, tolerance: float):
    with ran() as log:
        found = run(*optimisers.CASES[case], dtype)
    assert {which for name, which in log if name != "gather"} == {TWIN}
    for name, values in found.items():
        assert values.dtype == dtype
        stored = STORED[f"{case}/{name}"].reshape(values.shape)
        np.testing.assert_allclose(values, stored, rtol=tolerance, atol=tolerance)
    with reference():
        for name, values in run(*optimisers.CASES[case], dtype).items():
            # the CPU's twin gives the very same bits
            exact = 0 if TWIN == "cpu" else tolerance
            np.testing.assert_allclose(values, found[name], rtol=exact, atol=exact)


def linear(dtype: Any = np.float32) -> nn.Linear:
    model = nn.Linear(3, 2).to(dtype)
    for p in model.parameters():
        p.grad = np.ones_like(p.array)
    return model


def test_one_kernel_call_updates_a_group():
    model = linear()
    optimizer = optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    with ran() as log:
        optimizer.step()
    assert [name for name, _ in log] == ["gather", "sgd_step"]
    assert log[1] == ("sgd_step", TWIN)
    assert np.shares_memory(model.weight.array.base, model.bias.array.base)


def test_a_step_raises_versions_once_and_spoils_old_graphs():
    model = linear()
    optimizer = optim.SGD(model.parameters(), lr=0.1)
    y = model(mr.tensor(np.ones((4, 3)), dtype=np.float32)).sum()
    before = model.weight.version
    optimizer.step()
    assert model.weight.version == before + 1
    with pytest.raises(GraphError):
        y.backward()


def test_parameters_without_gradient_stay(rng):
    model = linear()
    model.bias.grad = None
    before, version = model.bias.numpy().copy(), model.bias.version
    optimizer = optim.AdamW(model.parameters(), lr=0.1, weight_decay=0.5)
    optimizer.step()
    np.testing.assert_array_equal(model.bias.numpy(), before)
    assert model.bias.version == version
    assert optimizer.state_dict()["state"][1] == {}
    assert optimizer.state_dict()["state"][0]["step"] == 1


def test_zero_grad_forgets():
    model = linear()
    optim.SGD(model.parameters(), lr=0.1).zero_grad()
    assert all(p.grad is None for p in model.parameters())


def test_mixed_dtypes():
    a, b = linear(np.float32), linear(np.float64)
    before = [p.numpy().copy() for m in (a, b) for p in m.parameters()]
    optim.SGD([*a.parameters(), *b.parameters()], lr=0.5).step()
    for p, old in zip([*a.parameters(), *b.parameters()], before, strict=True):
        assert p.dtype == old.dtype
        np.testing.assert_allclose(p.numpy(), old - 0.5, rtol=tolerances.FLOAT32)


def test_parameters_moved_by_others_are_followed():
    model = linear()
    start = model.weight.numpy().astype(np.float64)
    one = optim.SGD(model.parameters(), lr=0.5, momentum=1.0)
    two = optim.SGD([model.weight], lr=0.25)  # takes the weight into a buffer of its own
    one.step()
    two.step()
    one.step()  # velocity 1, then 2
    np.testing.assert_allclose(model.weight.numpy(), start - 0.5 - 0.25 - 1.0, atol=1e-6)

    model.to(np.float64)  # as do conversions; the state goes along
    for p in model.parameters():
        p.grad = np.ones_like(p.array)
    one.step()
    assert model.weight.dtype == np.float64
    np.testing.assert_allclose(model.weight.numpy(), start - 1.75 - 1.5, atol=1e-6)


def test_assigned_and_loaded_values_are_used():
    model = linear()
    optimizer = optim.SGD(model.parameters(), lr=1.0)
    model.load_state_dict({"weight": np.full((3, 2), 5.0), "bias": np.zeros(2)})
    model.bias.assign(3.0)
    optimizer.step()
    assert (model.weight.numpy() == 4).all()
    assert (model.bias.numpy() == 2).all()


def test_no_decay_groups_spare_biases_and_norms():
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
    decayed, spared = optim.no_decay_groups(model, 0.1)
    assert [p.shape for p in decayed["params"]] == [(3, 3, 3, 4)]
    assert [p.shape for p in spared["params"]] == [(4,)] * 3
    assert (decayed["weight_decay"], spared["weight_decay"]) == (0.1, 0.0)
    assert len(optim.no_decay_groups(nn.BatchNorm2d(4), 0.1)) == 1


@pytest.mark.parametrize("case", optimisers.CASES)
def test_state_survives_saving(case: str):
    """Three steps, through JSON's types into another optimiser, two steps: as if unbroken."""
    kind, options = optimisers.CASES[case]
    params, whole = make(kind, options, np.float64)
    split, other = make(kind, options, np.float64)
    first = None
    for step in range(optimisers.STEPS):
        for name in optimisers.SHAPES:
            params[name].grad = split[name].grad = optimisers.gradient(name, step)
        whole.step()
        (first or other).step()
        if step == 2:
            state = other.state_dict()
            split = {name: nn.Parameter(p.numpy().copy()) for name, p in split.items()}
            groups = [
                {"params": [split["weight"]]},
                {"params": [split["bias"], split["scale"]]},
            ]
            first = getattr(optim, kind)(groups, lr=7.0)
            state["groups"] = json.loads(json.dumps(state["groups"]))
            first.load_state_dict(state)
    for name, p in params.items():
        np.testing.assert_array_equal(p.numpy(), split[name].numpy())


def test_saved_state_is_a_copy():
    model = linear()
    optimizer = optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    optimizer.step()
    state = optimizer.state_dict()
    kept = state["state"][0]["momentum_buffer"].copy()
    optimizer.step()
    np.testing.assert_array_equal(state["state"][0]["momentum_buffer"], kept)


def test_foreign_state_is_refused_and_changes_nothing():
    model = linear()
    optimizer = optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    optimizer.step()
    good = optimizer.state_dict()

    def refused(match: str, **changes: Any) -> None:
        with pytest.raises(ValueError, match=match):
            optimizer.load_state_dict({**good, **changes})
        assert optimizer.param_groups[0]["lr"] == 0.1

    options = {**good["groups"][0], "lr": 3.0}
    refused(r"groups of \[1\] parameters", groups=[{**options, "count": 1}])
    refused("option 'betas' is not on both sides", groups=[{**options, "betas": (0.9, 0.9)}])
    wrong = {"step": 1, "momentum_buffer": np.zeros((2, 3))}
    refused(
        r"momentum_buffer of shape \(2, 3\) but must have momentum_buffer of \(3, 2\)",
        groups=[options],
        state=[wrong, {}],
    )
    foreign = {"step": 1, "exp_avg": np.zeros((3, 2))}
    refused("parameter 0 has exp_avg", groups=[options], state=[foreign, {}])


@pytest.mark.parametrize(
    ("kind", "options", "message"),
    [
        ("SGD", {"lr": -1}, "SGD: lr is -1 but must be a number of at least 0"),
        ("SGD", {"lr": float("nan")}, "SGD: lr is nan but must be a number of at least 0"),
        ("SGD", {"lr": "fast"}, "SGD: lr is 'fast' but must be a number of at least 0"),
        ("SGD", {"lr": 1, "momentum": -0.5}, "SGD: momentum is -0.5 but"),
        ("SGD", {"lr": 1, "weight_decay": -1e-4}, "SGD: weight_decay is -0.0001 but"),
        ("SGD", {"lr": 1, "nesterov": True}, "SGD: nesterov needs momentum above 0"),
        (
            "SGD",
            {"lr": 1, "momentum": 0.9, "dampening": 0.1, "nesterov": True},
            "got momentum=0.9 and dampening=0.1",
        ),
        ("Adam", {"lr": float("inf")}, "Adam: lr is inf but"),
        ("Adam", {"eps": -1}, "Adam: eps is -1 but"),
        ("Adam", {"betas": (0.9, 1.0)}, r"Adam: betas is \(0.9, 1.0\) but must be two numbers"),
        ("AdamW", {"betas": (0.9,)}, r"AdamW: betas is \(0.9,\) but must be two numbers"),
    ],
)
def test_options_out_of_range(kind: str, options: dict[str, Any], message: str):
    with pytest.raises(ValueError, match=message):
        getattr(optim, kind)(linear().parameters(), **options)


def test_parameters_that_cannot_be():
    p = linear().weight
    with pytest.raises(ValueError, match="SGD: params is empty"):
        optim.SGD([], lr=0.1)
    with pytest.raises(ValueError, match=r"a parameter of shape \(3, 2\) comes again in group 1"):
        optim.SGD([{"params": [p]}, {"params": [p]}], lr=0.1)
    with pytest.raises(TypeError, match="a parameter is ndarray, not a Tensor"):
        optim.SGD([np.zeros(3)], lr=0.1)
    with pytest.raises(DTypeError, match="a parameter is int64 but must be floating-point"):
        optim.SGD([mr.tensor(np.arange(3))], lr=0.1)
    message = "SGD: a group has unknown option 'learning_rate'; expected params, lr, momentum"
    with pytest.raises(ValueError, match=re.escape(message)):
        optim.SGD([{"params": [p], "learning_rate": 1}], lr=0.1)
    with pytest.raises(ValueError, match="SGD: a group has no 'params'"):
        optim.SGD([{"lr": 1}], lr=0.1)


def test_a_gradient_of_another_shape():
    model = linear()
    model.weight.grad = np.ones((2, 3), np.float32)
    with pytest.raises(
        ShapeError, match=r"a gradient has shape \(2, 3\) but its parameter \(3, 2\)"
    ):
        optim.SGD(model.parameters(), lr=0.1).step()
