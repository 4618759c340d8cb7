"""Learning-rate schedules: PyTorch's rates, as pure functions that can go on anywhere."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from minires import nn, optim
from tests import tolerances
from tests.reference import optimisers
from tests.reference.store import Reference

__all__: list[str] = []

STORED = Reference("optim")
LENGTH = optimisers.LENGTH


def sgd(*rates: float) -> optim.SGD:
    groups = [{"params": [nn.Parameter(np.zeros(1))], "lr": lr} for lr in rates]
    return optim.SGD(groups, lr=1.0)


def make(case: str, optimizer: optim.SGD) -> optim.Schedule:
    if case == "warmup":
        return optim.WarmupLR(optim.CosineLR(optimizer, total_steps=24), steps=6)
    kind, options, _, _ = optimisers.SCHEDULES[case]
    return getattr(optim, kind)(optimizer, **options)


CASES = [*optimisers.SCHEDULES, "warmup"]


@pytest.mark.parametrize("case", CASES)
def test_rates_are_pytorchs(case: str):
    optimizer = sgd(0.5)
    schedule = make(case, optimizer)
    taken = []
    for _ in range(LENGTH):
        taken.append(optimizer.param_groups[0]["lr"])
        schedule.step()
    np.testing.assert_allclose(taken, STORED[f"rates/{case}"], rtol=tolerances.FLOAT64)
    assert taken == [schedule.at(step) for step in range(LENGTH)]


@pytest.mark.parametrize("case", CASES)
def test_goes_on_where_it_was(case: str):
    optimizer = sgd(0.5, 0.25)
    schedule = make(case, optimizer)
    for _ in range(11):
        schedule.step()
    other = sgd(3.0, 4.0)
    resumed = make(case, other)
    resumed.load_state_dict(schedule.state_dict())
    for _ in range(5):
        rates = [[group["lr"] for group in o.param_groups] for o in (optimizer, other)]
        assert rates[0] == rates[1]
        schedule.step()
        resumed.step()


@pytest.mark.parametrize("case", ["cosine", "onecycle", "onecycle linear", "warmup"])
def test_past_the_end_the_rate_stays(case: str):
    schedule = make(case, sgd(0.5))
    assert schedule.at(1000) == pytest.approx(schedule.at(30))


def test_each_group_has_its_own_rate():
    optimizer = sgd(1.0, 10.0)
    schedule = optim.StepLR(optimizer, step_size=1)
    schedule.step()
    assert [group["lr"] for group in optimizer.param_groups] == pytest.approx([0.1, 1.0])
    assert schedule.at(2, group=1) == pytest.approx(0.1)
    schedule = optim.OneCycleLR(optimizer, [1.0, 10.0], total_steps=10)
    assert schedule.at(2, group=1) == pytest.approx(10 * schedule.at(2, group=0))


def test_warmup_before_a_constant_rate():
    schedule = optim.WarmupLR(sgd(0.2), steps=4, start_factor=0.0)
    assert [schedule.at(step) for step in range(6)] == pytest.approx([0, 0.05, 0.1, 0.15, 0.2, 0.2])
    assert optim.WarmupLR(sgd(0.2), steps=0).at(0) == pytest.approx(0.2)


@pytest.mark.parametrize(
    ("kind", "options", "message"),
    [
        ("StepLR", {"step_size": 0}, "StepLR: step_size is 0 but must be at least 1"),
        ("MultiStepLR", {"milestones": [9, 3]}, r"milestones is \[9, 3\] but must be in rising"),
        ("CosineLR", {"total_steps": 0}, "CosineLR: total_steps is 0 but must be at least 1"),
        ("CosineLR", {"total_steps": 9, "min_lr": -1}, "CosineLR: min_lr is -1 but"),
        ("OneCycleLR", {"max_lr": 0, "total_steps": 9}, "OneCycleLR: max_lr is 0 but"),
        ("OneCycleLR", {"max_lr": [1, 2], "total_steps": 9}, "one number or 1"),
        ("OneCycleLR", {"max_lr": 1, "total_steps": 1}, "OneCycleLR: total_steps is 1 but"),
        ("OneCycleLR", {"max_lr": 1, "total_steps": 9, "pct_start": 1.0}, "pct_start is 1.0 but"),
        (
            "OneCycleLR",
            {"max_lr": 1, "total_steps": 9, "anneal_strategy": "cosine"},
            "anneal_strategy is 'cosine' but must be cos or linear",
        ),
        ("WarmupLR", {"steps": -1}, "WarmupLR: steps is -1 but must be at least 0"),
        ("WarmupLR", {"steps": 5, "start_factor": 2}, "WarmupLR: start_factor is 2 but"),
    ],
)
def test_options_out_of_range(kind: str, options: dict[str, Any], message: str):
    with pytest.raises(ValueError, match=message):
        getattr(optim, kind)(sgd(0.5), **options)


def test_state_of_other_groups_is_refused():
    schedule = optim.StepLR(sgd(0.5), step_size=3)
    with pytest.raises(ValueError, match=r"load_state_dict: 2 groups but must be 1"):
        schedule.load_state_dict(optim.StepLR(sgd(1.0, 2.0), step_size=3).state_dict())
