"""A moving average of all weights that training goes back to every few steps."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..backend import to_device

__all__ = ["Lookahead"]

DECAY = 0.95  # of the average, a step at the end of a run


class Lookahead:
    """Every `every` steps: average = a · average + (1 - a) · weights, and weights = average, with
    a = 0.95^every · (step / steps)³; after the last step the weights are the average.

    The average holds what is learnt and the running statistics. Early in a run it hardly differs
    from the weights, late it calms their noise.

    Source: Zhang et al., "Lookahead optimizer: k steps forward, 1 step back", NeurIPS 2019; the
    rising weight is that of Jordan 2024, arXiv:2404.00498.
    """

    def __init__(self, model: Any, every: int, steps: int) -> None:
        self.model, self.every, self.steps = model, every, steps
        self.begin()

    def begin(self) -> None:
        """Start from the weights as they are now."""
        self.average = {name: array.copy() for name, array in self._arrays()}

    def after_step(self, step: int) -> None:
        """Call it when `step` steps have been taken."""
        if step % self.every == 0:
            self._blend(DECAY**self.every * (step / self.steps) ** 3)
        if step == self.steps:
            self._blend(1.0)

    def _blend(self, share: float) -> None:
        for name, array in self._arrays():
            average = self.average[name]
            average *= average.dtype.type(share)
            average += array.dtype.type(1 - share) * array
            array[...] = average
        for p in self.model.parameters():
            p.bump_version()

    def _arrays(self) -> list[tuple[str, Any]]:
        """The model's own arrays of floating-point numbers by name."""
        learnt = [(name, p.array) for name, p in self.model.named_parameters()]
        buffers = [pair for pair in self.model.named_buffers() if pair[1].dtype.kind == "f"]
        return learnt + buffers

    def state_dict(self) -> dict[str, np.ndarray]:
        """The average; `load_state_dict` takes it back."""
        return {name: array.copy() for name, array in self.average.items()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from what `state_dict` returned."""
        for name, array in self.average.items():
            array[...] = to_device(state[name], "cpu" if isinstance(array, np.ndarray) else "cuda")
