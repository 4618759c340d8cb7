"""What steps on a GPU measure, added up there: only reading it waits for the GPU.

A host that looks at every loss waits for every step, and the GPU waits for it in turn. So losses,
right answers and the norm of the gradients stay in eight numbers of the GPU's memory, and so does
the decision that a step is not to change the weights (see `kernels.judge.judge_step`).
"""

from __future__ import annotations

from typing import Any, NamedTuple

from ..kernels.judge import judge_step, sums_of_all
from ..kernels.loss import right_answers
from ..kernels.memory import zeros
from ..tensor import Tensor

__all__ = ["Measured", "Sums"]


class Measured(NamedTuple):
    """What was found so far: sums over images, the last batch's mean loss and gradient norm, steps,
    which of them (from 1) was the first with NaN or Inf, or 0, and the sum of the norms before it.
    """

    loss_sum: float
    correct: int
    loss: float
    norm: float
    steps: int
    bad: int
    norms: float

    @property
    def lost(self) -> int:
        """How many steps came to nothing, from the first with NaN or Inf on."""
        return self.steps - self.bad + 1 if self.bad else 0


class Sums:
    """Running sums on the GPU of `like`. most: the largest norm of gradients; more is clipped."""

    def __init__(self, like: Any, most: float = float("inf")) -> None:
        self.most, self.state = most, zeros((8,), "float64", like=like)

    def begin(self, loss_sum: float = 0.0, correct: int = 0, norms: float = 0.0) -> None:
        """Start from these sums."""
        self.state.fill(0)
        self.state[1:2].fill(loss_sum)
        self.state[2:3].fill(correct)
        self.state[7:8].fill(norms)

    def add(
        self, logits: Any, target: Any, loss: Any, gradients: list[Any], scale: Any = None
    ) -> Any:
        """Count a batch: logits (n, k), labels (n,), its mean loss (), and its gradients, flat;
        with the state of the `LossScale` that is in them.

        Returns what they are to be multiplied by, first in an array of float64; it is negative when
        nothing is to change, as from the first NaN or Inf on.
        """
        parts = sums_of_all(gradients) if gradients else zeros((1,), "float64", like=self.state)
        judge_step(self.state, parts, loss, right_answers(logits, target), scale, most=self.most)
        return self.state[:1] if scale is None else scale

    def read(self) -> Measured:
        """Wait for the GPU, and see."""
        _, loss_sum, correct, loss, norm, steps, bad, norms = Tensor(self.state).numpy().tolist()
        return Measured(loss_sum, int(correct), loss, norm, int(steps), int(bad), norms)
