"""What all optimisers share: groups of parameters with their options, and state to be saved."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, ClassVar

import numpy as np

from ..errors import DTypeError
from ..tensor import Tensor
from .flat import Flat

__all__ = ["Optimizer", "no_decay_groups"]

NUMBERS = (int, float, np.integer, np.floating)


def no_decay_groups(model: Any, weight_decay: float) -> list[dict[str, Any]]:
    """Two groups of `model`'s parameters: weights decay, BatchNorms and biases (rank <= 1) do not.

    Source: Goyal et al., "Accurate, large minibatch SGD", 2017, section 5.3 (for BatchNorm); He et
    al., "Bag of tricks for image classification", CVPR 2019, section 3.1.

    >>> from minires import nn, optim
    >>> groups = optim.no_decay_groups(nn.Linear(3, 2), 5e-4)
    >>> [(group["weight_decay"], [p.shape for p in group["params"]]) for group in groups]
    [(0.0005, [(3, 2)]), (0.0, [(2,)])]
    """
    params = list(model.parameters())
    groups = [
        {"params": [p for p in params if p.ndim > 1], "weight_decay": weight_decay},
        {"params": [p for p in params if p.ndim <= 1], "weight_decay": 0.0},
    ]
    return [group for group in groups if group["params"]]


class Optimizer:
    """Base class. A subclass gives its options as `defaults` and updates flat arrays in `_update`.

    param_groups: dicts of "params" and every option; options may be changed between steps.
    """

    # option -> (least, bound): least <= value < bound
    limits: ClassVar[dict[str, tuple[float, float]]] = {"lr": (0, float("inf"))}
    buffers: ClassVar[tuple[str, ...]] = ()  # the names of the state arrays

    def __init__(self, params: Iterable[Any], **defaults: Any) -> None:
        self.name = type(self).__name__
        params = [params] if isinstance(params, Tensor) else list(params)
        if not params:
            raise ValueError(f"{self.name}: params is empty but must hold at least one parameter")
        groups = params if isinstance(params[0], Mapping) else [{"params": params}]
        self.param_groups = [self._checked_group(group, defaults) for group in groups]
        self._check_unique()
        self._flats = self._flatten()
        self._updated: list[tuple[Flat, int, int]] = []

    def zero_grad(self) -> None:
        """Forget the gradients, so that the next backward starts anew."""
        for group in self.param_groups:
            for p in group["params"]:
                p.grad = None

    def step(self, judge: Callable[[list[Any]], Any] | None = None) -> None:
        """Update every parameter that has a gradient; leave alone the others and their state.

        judge: for parameters on a GPU, is given the flat gradients and returns an array there, of
        one float64, by which they are multiplied; where it is negative, nothing changes. That of
        `LossScale` also says whether the step counts as one.
        """
        adopted = [flat.adopt() for flat in self._flats]
        if not all(adopted):
            state = self.state_dict()
            self._flats = self._flatten()
            self.load_state_dict(state)
        self.prepare()
        runs = [(flat, *run) for flat in self._flats for run in flat.runs()]
        parts = [slice(flat.offsets[start], flat.offsets[stop]) for flat, start, stop, _ in runs]
        for flat, start, stop, _ in runs:
            flat.gather(start, stop)
        factor = judge([flat.g[part] for (flat, *_), part in zip(runs, parts)]) if judge else None
        for (flat, start, stop, steps), part in zip(runs, parts):
            flat.factor = factor
            self._update(flat, part, flat.number_of_step(start, stop, steps + 1))
        self._updated = [(flat, start, stop) for flat, start, stop, _ in runs]
        self.count_step()
        for flat in self._flats:
            flat.g = flat.factor = None  # needed no more

    def prepare(self) -> None:
        """Write what a step reads from a GPU's memory: learning rates that have changed. `step`
        does so itself; before a recorded step is replayed, call this.
        """
        for flat in self._flats:
            flat.prepare()

    def count_step(self) -> None:
        """Note that the parameters of the last step have changed; after a replayed step, once
        more.
        """
        for flat, start, stop in self._updated:
            flat.count_step(start, stop)

    def _update(self, flat: Flat, part: slice, step: Any) -> None:
        """Take the step number `step` (from 1; on a GPU an array of it there) for one part of the
        flat arrays, by `flat.rate` and `flat.factor`.
        """
        raise NotImplementedError

    # State

    def state_dict(self) -> dict[str, Any]:
        """Options and state as plain numbers, lists and copied arrays.

        {"groups": [a group's options and the "count" of its parameters, ...],
         "state": [for each parameter {"step": n, name: array, ...}, {} before its first step]}
        """
        groups = []
        for flat in self._flats:
            flat.recall()
        for group in self.param_groups:
            options = {name: value for name, value in group.items() if name != "params"}
            groups.append({**options, "count": len(group["params"])})
        return {"groups": groups, "state": [flat.state_of(i) for flat, i, _ in self._places()]}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over what `state_dict` returned; all or nothing.

        Raises ValueError when the groups, their parameters or the optimiser are others than here.
        """
        groups, entries, places = state["groups"], state["state"], self._places()
        counts = [len(group["params"]) for group in self.param_groups]
        given = [group["count"] for group in groups]
        if given != counts or len(entries) != len(places):
            raise ValueError(
                f"{self.name}.load_state_dict: groups of {given} parameters, state of "
                f"{len(entries)}, but there must be groups of {counts}"
            )
        for own, new in zip(self.param_groups, groups, strict=True):
            odd = own.keys() - {"params"} ^ new.keys() - {"count"}
            if odd:
                raise ValueError(
                    f"{self.name}.load_state_dict: option {min(odd)!r} is not on both sides: "
                    "is it the state of another optimiser?"
                )
        for i, ((_, _, p), entry) in enumerate(zip(places, entries, strict=True)):
            for name, value in entry.items():
                if name != "step" and (name not in self.buffers or value.shape != p.shape):
                    raise ValueError(
                        f"{self.name}.load_state_dict: parameter {i} has {name} of shape "
                        f"{value.shape} but must have {' and '.join(self.buffers)} of {p.shape}"
                    )
        for own, new in zip(self.param_groups, groups, strict=True):
            own.update({name: value for name, value in new.items() if name != "count"})
        for (flat, i, _), entry in zip(places, entries, strict=True):
            flat.load_state_of(i, entry)

    def _places(self) -> list[tuple[Flat, int, Tensor]]:
        """(flat, position in it, parameter) in the order of the groups."""
        of = {id(p): (flat, i, p) for flat in self._flats for i, p in enumerate(flat.params)}
        return [of[id(p)] for group in self.param_groups for p in group["params"]]

    # Checks

    def _checked_group(self, group: Mapping[str, Any], defaults: dict[str, Any]) -> dict[str, Any]:
        unknown = group.keys() - defaults.keys() - {"params"}
        if unknown or "params" not in group:
            what = f"unknown option {min(unknown)!r}" if unknown else "no 'params'"
            raise ValueError(
                f"{self.name}: a group has {what}; expected params, {', '.join(defaults)}"
            )
        params = group["params"]
        params = [params] if isinstance(params, Tensor) else list(params)
        options = {**defaults, **group, "params": params}
        for p in params:
            if not isinstance(p, Tensor):
                raise TypeError(f"{self.name}: a parameter is {type(p).__name__}, not a Tensor")
            if p.dtype.kind != "f":
                raise DTypeError(
                    f"{self.name}: a parameter is {p.dtype} but must be floating-point"
                )
        for name, (least, bound) in self.limits.items():
            value = options[name]
            if not (isinstance(value, NUMBERS) and least <= value < bound):
                below = "" if bound == float("inf") else f" and below {bound:g}"
                raise ValueError(
                    f"{self.name}: {name} is {value!r} but must be a number of at least "
                    f"{least:g}{below}"
                )
        self._check_options(options)
        return options

    def _check_options(self, options: dict[str, Any]) -> None:
        """Raise ValueError for options that `limits` cannot describe."""

    def _check_unique(self) -> None:
        seen: set[int] = set()
        for number, group in enumerate(self.param_groups):
            for p in group["params"]:
                if id(p) in seen:
                    raise ValueError(
                        f"{self.name}: a parameter of shape {p.shape} comes again in group {number}"
                    )
                seen.add(id(p))

    def _flatten(self) -> list[Flat]:
        flats = []
        for group in self.param_groups:
            kinds: dict[Any, list[Tensor]] = {}
            for p in group["params"]:
                kinds.setdefault((p.dtype, p.device), []).append(p)
            flats += [Flat(group, params) for params in kinds.values()]
        return flats
