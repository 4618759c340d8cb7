"""Learning-rate schedules: pure functions of the number of steps taken.

A schedule computes every rate from the step number and the rate that a group began with, never from
the rate before, so that resuming is setting one integer. Call `schedule.step()` after each
`optimizer.step()`, or once an epoch: its unit is yours.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from .optimizer import Optimizer

__all__ = ["CosineLR", "MultiStepLR", "OneCycleLR", "Schedule", "StepLR", "WarmupLR"]


class Schedule:
    """Base class: sets the learning rate of each group to `rate(steps taken, first rate)`."""

    def __init__(self, optimizer: Optimizer, base: Sequence[float] | None = None) -> None:
        self.optimizer, self.count = optimizer, 0
        first = [group["lr"] for group in optimizer.param_groups]
        self.base = [float(lr) for lr in (first if base is None else base)]
        self._apply()

    def rate(self, step: int, base: float) -> float:
        """The learning rate after `step` steps."""
        raise NotImplementedError

    def at(self, step: int, group: int = 0) -> float:
        """The learning rate of a group after `step` steps."""
        return self.rate(step, self.base[group])

    def step(self) -> None:
        """Set the optimiser's learning rates for its next step."""
        self.count += 1
        self._apply()

    def _apply(self) -> None:
        for number, group in enumerate(self.optimizer.param_groups):
            group["lr"] = self.at(self.count, number)

    def state_dict(self) -> dict[str, Any]:
        """The steps taken and the groups' first rates, as plain numbers."""
        return {"count": self.count, "base": list(self.base)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on where `state_dict` was taken, and set the optimiser's learning rates to match."""
        if len(state["base"]) != len(self.base):
            raise ValueError(
                f"{type(self).__name__}.load_state_dict: {len(state['base'])} groups but must be "
                f"{len(self.base)}"
            )
        self.count, self.base = int(state["count"]), [float(base) for base in state["base"]]
        self._apply()


def _need(holds: bool, name: str, value: object, expected: str) -> None:
    if not holds:
        raise ValueError(f"{name} is {value!r} but must be {expected}")


class StepLR(Schedule):
    """Times `gamma` every `step_size` steps.

    >>> from minires import nn, optim
    >>> schedule = optim.StepLR(optim.SGD(nn.Linear(2, 2).parameters(), lr=1.0), step_size=30)
    >>> [round(schedule.at(epoch), 6) for epoch in (0, 29, 30, 60)]
    [1.0, 1.0, 0.1, 0.01]
    """

    def __init__(self, optimizer: Optimizer, step_size: int, gamma: float = 0.1) -> None:
        _need(step_size >= 1, "StepLR: step_size", step_size, "at least 1")
        self.step_size, self.gamma = step_size, gamma
        super().__init__(optimizer)

    def rate(self, step: int, base: float) -> float:
        return base * self.gamma ** (step // self.step_size)


class MultiStepLR(Schedule):
    """Times `gamma` at each of the `milestones`.

    >>> from minires import nn, optim
    >>> optimizer = optim.SGD(nn.Linear(2, 2).parameters(), lr=1.0)
    >>> schedule = optim.MultiStepLR(optimizer, milestones=[80, 120])
    >>> [round(schedule.at(epoch), 6) for epoch in (79, 80, 120)]
    [1.0, 0.1, 0.01]
    """

    def __init__(self, optimizer: Optimizer, milestones: Iterable[int], gamma: float = 0.1) -> None:
        self.milestones, self.gamma = list(milestones), gamma
        rising = self.milestones == sorted(self.milestones)
        _need(rising, "MultiStepLR: milestones", self.milestones, "in rising order")
        super().__init__(optimizer)

    def rate(self, step: int, base: float) -> float:
        return base * self.gamma ** bisect_right(self.milestones, step)


def _line(start: float, end: float, progress: float) -> float:
    return start + (end - start) * progress


def _cosine(start: float, end: float, progress: float) -> float:
    """From `start` to `end` along half a cosine, for progress from 0 to 1."""
    return end + (start - end) * (1 + math.cos(math.pi * progress)) / 2


class CosineLR(Schedule):
    """Down to `min_lr` along half a cosine in `total_steps` steps, and there it stays.

    Source: Loshchilov and Hutter, "SGDR: stochastic gradient descent with warm restarts", ICLR 2017
    (without restarts).

    >>> from minires import nn, optim
    >>> optimizer = optim.SGD(nn.Linear(2, 2).parameters(), lr=1.0)
    >>> schedule = optim.CosineLR(optimizer, total_steps=100)
    >>> [round(schedule.at(step), 6) for step in (0, 50, 100, 101)]
    [1.0, 0.5, 0.0, 0.0]
    """

    def __init__(self, optimizer: Optimizer, total_steps: int, min_lr: float = 0.0) -> None:
        _need(total_steps >= 1, "CosineLR: total_steps", total_steps, "at least 1")
        _need(min_lr >= 0, "CosineLR: min_lr", min_lr, "at least 0")
        self.total_steps, self.min_lr = total_steps, min_lr
        super().__init__(optimizer)

    def rate(self, step: int, base: float) -> float:
        return _cosine(base, self.min_lr, min(step / self.total_steps, 1.0))


class OneCycleLR(Schedule):
    """Up to `max_lr` and down to nearly nothing, in `total_steps` steps in all.

    It begins at max_lr / div_factor, is highest after the share `pct_start` of the steps, and ends
    at max_lr / (div_factor * final_div_factor). The momentum stays as it is.

    max_lr: a number, or one for each group.
    anneal_strategy: "cos" or "linear".

    Source: Smith and Topin, "Super-convergence", 2017, in PyTorch's form.

    >>> from minires import nn, optim
    >>> optimizer = optim.SGD(nn.Linear(2, 2).parameters(), lr=0.1)
    >>> schedule = optim.OneCycleLR(optimizer, 1.0, total_steps=101, anneal_strategy="linear")
    >>> [round(schedule.at(step), 6) for step in (0, 29, 100)]
    [0.04, 0.990171, 4e-06]
    """

    def __init__(
        self,
        optimizer: Optimizer,
        max_lr: float | Sequence[float],
        total_steps: int,
        pct_start: float = 0.3,
        anneal_strategy: str = "cos",
        div_factor: float = 25.0,
        final_div_factor: float = 1e4,
    ) -> None:
        groups = len(optimizer.param_groups)
        base = [max_lr] * groups if isinstance(max_lr, int | float) else list(max_lr)
        good = len(base) == groups and all(lr > 0 for lr in base)
        _need(good, "OneCycleLR: max_lr", max_lr, f"above 0, one number or {groups}")
        _need(total_steps >= 2, "OneCycleLR: total_steps", total_steps, "at least 2")
        _need(0 <= pct_start < 1, "OneCycleLR: pct_start", pct_start, "at least 0 and below 1")
        good = anneal_strategy in ("cos", "linear")
        _need(good, "OneCycleLR: anneal_strategy", anneal_strategy, "cos or linear")
        _need(div_factor > 0, "OneCycleLR: div_factor", div_factor, "above 0")
        _need(final_div_factor > 0, "OneCycleLR: final_div_factor", final_div_factor, "above 0")
        self.top = max(pct_start * total_steps - 1, 0.0)  # the step of the highest rate
        self.last = total_steps - 1
        self.low, self.end = 1 / div_factor, 1 / div_factor / final_div_factor
        self.between = _cosine if anneal_strategy == "cos" else _line
        super().__init__(optimizer, base)

    def rate(self, step: int, base: float) -> float:
        if step < self.top:
            return self.between(self.low * base, base, step / self.top)
        progress = (min(step, self.last) - self.top) / (self.last - self.top)
        return self.between(base, self.end * base, progress)


class WarmupLR(Schedule):
    """A linear rise over the first `steps` steps, before another schedule or a constant rate.

    It begins at `start_factor` times the first rate of `after`, an optimiser or a schedule, which
    then runs from its step 0.

    Source: Goyal et al., "Accurate, large minibatch SGD: training ImageNet in 1 hour", 2017,
    section 2.2.

    >>> from minires import nn, optim
    >>> optimizer = optim.SGD(nn.Linear(2, 2).parameters(), lr=1.0)
    >>> schedule = optim.WarmupLR(optim.CosineLR(optimizer, total_steps=90), steps=10)
    >>> [round(schedule.at(step), 6) for step in (0, 5, 10, 55, 100)]
    [0.1, 0.55, 1.0, 0.5, 0.0]
    """

    def __init__(self, after: Schedule | Optimizer, steps: int, start_factor: float = 0.1) -> None:
        _need(steps >= 0, "WarmupLR: steps", steps, "at least 0")
        good = 0 <= start_factor <= 1
        _need(good, "WarmupLR: start_factor", start_factor, "at least 0 and at most 1")
        self.after = after if isinstance(after, Schedule) else None
        self.steps, self.start_factor = steps, start_factor
        if isinstance(after, Schedule):
            super().__init__(after.optimizer, after.base)
        else:
            super().__init__(after)

    def rate(self, step: int, base: float) -> float:
        rate = self.after.rate(max(step - self.steps, 0), base) if self.after else base
        progress = min(step / self.steps, 1.0) if self.steps else 1.0
        return rate * _line(self.start_factor, 1.0, progress)
