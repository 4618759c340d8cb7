"""Parameters end to end in one buffer, so that one kernel call updates all of them.

`parameter.array` becomes a view of the buffer, and gradients are gathered into another: each number
of weight, gradient and state passes through memory once a step. Whoever moves a parameter elsewhere
later (`model.to(...)`, a second optimiser) is noticed at the next step, and it is taken in again.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import accumulate, groupby
from typing import Any

from ..backend import array_module, to_device
from ..errors import ShapeError
from ..kernels.collect import collect
from ..kernels.memory import empty, zeros
from ..tensor import Tensor

__all__ = ["Flat"]


class Flat:
    """The parameters of one group, dtype and device, and their state.

    w (n,): the weights, and during a step g (n,): the gradients; parameter i is
        offsets[i]:offsets[i + 1].
    rate, factor: the learning rate, and what gradients are multiplied by (None: nothing). On a GPU
        both are read from its memory, and so is the number of the step: a recorded step that is
        replayed sees what they are by then.
    """

    def __init__(self, group: dict[str, Any], params: list[Tensor]) -> None:
        self.group, self.params = group, params
        self.offsets = [0, *accumulate(p.size for p in params)]
        self.dtype, self.device = params[0].dtype, params[0].device
        self.w = empty((self.offsets[-1],), self.dtype, like=params[0].array)
        self.g: Any = None
        self.views = [self._view(self.w, i) for i in range(len(params))]
        self.steps = [0] * len(params)
        self.state: dict[str, Any] = {}
        self.factor: Any = None
        self._rate: Any = None  # on a GPU: float64 (1,) …
        self._written: float | None = None  # … and what it holds
        self._counts: Any = None  # on a GPU: `steps`, int64
        self._stale = True  # `_counts` must be written
        self.adopt()

    def _view(self, flat: Any, i: int) -> Any:
        return flat[self.offsets[i] : self.offsets[i + 1]].reshape(self.params[i].shape)

    def adopt(self) -> bool:
        """Take in parameters whose data lies elsewhere; False when one changed dtype or device."""
        moved = [i for i, p in enumerate(self.params) if p.array is not self.views[i]]
        if any(
            (self.params[i].dtype, self.params[i].device) != (self.dtype, self.device)
            for i in moved
        ):
            return False
        for i in moved:
            self.views[i][...] = self.params[i].array
            self.params[i]._adopt(self.views[i])
        return True

    @property
    def rate(self) -> Any:
        """The learning rate: a number, or on a GPU an array there."""
        return self.group["lr"] if self.device == "cpu" else self._rate

    def prepare(self) -> None:
        """Write what the next step reads from the GPU's memory, where it has changed."""
        if self.device == "cpu":
            return
        if self._rate is None:
            self._rate = zeros((1,), "float64", like=self.w)
            self._counts = zeros((len(self.steps),), "int64", like=self.w)
        if self._written != self.group["lr"]:
            self._written = float(self.group["lr"])
            self._rate.fill(self._written)
        if self._stale:
            for start, stop, steps in self._alike():
                self._counts[start:stop].fill(steps)
            self._stale = False

    def _alike(self) -> Iterator[tuple[int, int, int]]:
        """(start, stop, steps) of neighbours that took equally many steps."""
        for steps, run in groupby(range(len(self.steps)), self.steps.__getitem__):
            positions = list(run)
            yield positions[0], positions[-1] + 1, steps

    def number_of_step(self, start: int, stop: int, number: int) -> Any:
        """The number of the step, for the parameters start … stop - 1; on a GPU counted there."""
        if self.device == "cpu":
            return number
        counts = self._counts[start:stop]
        if self.factor is None or self.factor.size == 1:
            counts += 1
        else:  # a scaled loss: only if the step is taken
            array_module(counts).add(counts, self.factor[1], out=counts, casting="unsafe")
        return self._counts[start : start + 1]

    def recall(self) -> None:
        """Bring `steps` up to date with what a GPU counted; waits for it."""
        if self._counts is not None and not self._stale:
            self.steps = Tensor(self._counts).numpy().tolist()

    def buffer(self, name: str) -> Any:
        """The flat state array `name`, zeros at first."""
        if name not in self.state:
            self.state[name] = zeros(self.w.shape, self.dtype, like=self.w)
        return self.state[name]

    def runs(self) -> Iterator[tuple[int, int, int]]:
        """(start, stop, steps) of neighbours that have gradients and took equally many steps."""
        having = [-1 if p.grad is None else n for p, n in zip(self.params, self.steps, strict=True)]
        for steps, run in groupby(range(len(having)), having.__getitem__):
            if steps >= 0:
                positions = list(run)
                yield positions[0], positions[-1] + 1, steps

    def gather(self, start: int, stop: int) -> None:
        """Copy the gradients of the parameters start … stop - 1 into g."""
        if self.g is None:
            self.g = empty(self.w.shape, self.dtype, like=self.w)
        grads = []
        for p in self.params[start:stop]:
            if p.grad.shape != p.array.shape:
                raise ShapeError(
                    f"step: a gradient has shape {p.grad.shape} but its parameter {p.shape}"
                )
            grads.append(p.grad)
        collect(self.g[self.offsets[start] : self.offsets[stop]], *grads)

    def count_step(self, start: int, stop: int) -> None:
        """Note that the parameters start … stop - 1 have changed."""
        for i in range(start, stop):
            self.steps[i] += 1
            self.params[i].bump_version()

    def state_of(self, i: int) -> dict[str, Any]:
        """Parameter i's part: nothing before its first step."""
        if not self.steps[i]:
            return {}
        own = {name: self._view(flat, i).copy() for name, flat in self.state.items()}
        return {"step": self.steps[i], **own}

    def load_state_of(self, i: int, entry: Mapping[str, Any]) -> None:
        """The reverse of `state_of`."""
        self.steps[i] = int(entry.get("step", 0))
        self._stale = True
        for flat in self.state.values():
            self._view(flat, i).fill(0)
        for name, value in entry.items():
            if name != "step":
                self._view(self.buffer(name), i)[...] = to_device(value, self.device)
