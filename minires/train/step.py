"""One training step, and the guard that keeps NaN and infinity out of the weights."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

from .. import functional as F
from .. import random
from ..autograd import detect_anomaly
from ..backend import device_of, precision
from ..errors import NonFiniteError
from ..optim import LossScale, clip_grad_norm_
from ..optim.sums import Measured, Sums
from .metrics import Tally

__all__ = ["StepResult", "TrainStep", "count_correct"]


class StepResult(NamedTuple):
    """What one step measured: the batch's mean loss, right answers, learning rate and gradient
    norm. On a GPU all but the rate are None: see `TrainStep.read`.
    """

    loss: float | None
    correct: int | None
    rate: float
    norm: float | None


class TrainStep:
    """Forward, backward, check, update. With the network, the optimiser and the schedule it is all
    that training changes.
    """

    def __init__(
        self,
        model: Any,
        optimizer: Any,
        schedule: Any,
        *,
        label_smoothing: float = 0.0,
        class_weights: Any = None,
        clip_norm: float | None = None,
        precision: str = "float32",
    ) -> None:
        self.model, self.optimizer, self.schedule = model, optimizer, schedule
        self.label_smoothing, self.class_weights = label_smoothing, class_weights
        self.precision = precision
        self.clip_norm = math.inf if clip_norm is None else clip_norm
        self.sums: Sums | None = None  # on a GPU
        self.scale = LossScale() if precision == "fp16" else None

    def __call__(self, x: Any, target: Any) -> StepResult:
        """Learn from images x (b, h, w, c) and labels target (b,).

        Raises NonFiniteError naming the operation when the loss or a gradient is NaN or infinite;
        nothing has changed then: not the weights, not the running statistics, not the random state.
        On a GPU nobody waits to see that: the weights change no more, the running statistics stay
        finite, and `read` tells.
        """
        if device_of(x) != "cpu":
            return self._on_gpu(x, target)
        kept = self._keep()
        with np.errstate(all="ignore"):  # what overflows shows in the loss or the norm
            loss, logits = self._forward_backward(x, target)
            value = float(loss.item())
            norm = clip_grad_norm_(self.model.parameters(), self.clip_norm)
        if not (math.isfinite(value) and math.isfinite(norm)):
            op = self._find_op(x, target, kept)
            found = f"loss {value:.4g}, gradient norm {norm:.4g}"
            raise NonFiniteError(f"{op} gave NaN or Inf ({found})", op)
        rate = self._rate()
        self.optimizer.step()
        self.schedule.step()
        return StepResult(value, count_correct(logits, target), rate, norm)

    def _rate(self) -> float:
        return float(self.optimizer.param_groups[0]["lr"])

    # On a GPU: nothing waits for it

    def begin(self, tally: Tally, norms: float = 0.0) -> None:
        """Add up from `tally` and this sum of gradient norms on."""
        array = next(self.model.parameters()).array
        if device_of(array) != "cpu":
            self.sums = self.sums or Sums(array, self.clip_norm)
            self.sums.begin(tally.loss_sum, tally.correct, norms)

    def read(self, tally: Tally) -> Measured | None:
        """On a GPU, wait for it and bring the sums of `tally` up to date; else None."""
        if self.sums is None:
            return None
        found = self.sums.read()
        tally.loss_sum, tally.correct = found.loss_sum, found.correct
        return found

    def blame(self) -> NonFiniteError:
        """The error for what `read` found: the last batch again, checking every operation."""
        assert self.sums is not None
        found, op = self.sums.read(), self._find_op(*self._last, self._keep())
        return NonFiniteError(
            f"{op} gave NaN or Inf (loss {found.loss:.4g}, gradient norm {found.norm:.4g})", op
        )

    def _on_gpu(self, x: Any, target: Any) -> StepResult:
        if self.sums is None:
            self.begin(Tally())
        self._last, rate = (x, target), self._rate()
        self.optimizer.prepare()
        self.learn(x, target)
        self.schedule.step()
        return StepResult(None, None, rate, None)

    def learn(self, x: Any, target: Any) -> None:
        """All that the GPU does in a step. What changes from one to the next is in its memory."""
        assert self.sums is not None
        loss, logits = self._forward_backward(x, target)
        sums, measured = self.sums, (logits.array, target, loss.array)
        scale = None if self.scale is None else self.scale.state
        self.optimizer.step(lambda gradients: sums.add(*measured, gradients, scale))

    def _forward_backward(self, x: Any, target: Any) -> tuple[Any, Any]:
        self.optimizer.zero_grad()
        smoothing = self.label_smoothing
        with precision(self.precision, device_of(x)):
            logits = self.model(x)
            loss = F.cross_entropy(logits, target, self.class_weights, label_smoothing=smoothing)
            loss.backward(None if self.scale is None else self.scale.upstream(loss.dtype))
        return loss, logits

    def _keep(self) -> tuple[list[Any], dict[str, int]]:
        """What a forward pass changes: running statistics, and the random state."""
        return [array.copy() for _, array in self.model.named_buffers()], random.get_state()

    def _put_back(self, kept: tuple[list[Any], dict[str, int]]) -> None:
        buffers, state = kept
        for (_, array), before in zip(self.model.named_buffers(), buffers, strict=True):
            array[...] = before
        random.set_state(state)

    def _find_op(self, x: Any, target: Any, kept: tuple[list[Any], dict[str, int]]) -> str:
        """Do the step again, checking every operation; the first NaN or Inf is the one to blame."""
        self._put_back(kept)
        try:
            with detect_anomaly(), np.errstate(all="ignore"):
                self._forward_backward(x, target)
        except NonFiniteError as error:
            return error.op or "an operation"
        finally:
            self._put_back(kept)
            self.optimizer.zero_grad()
        return "an operation (not the same twice)"

    def state_dict(self) -> dict[str, Any]:
        """All that training changes: weights, statistics, momenta, schedule, random state."""
        return {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "schedule": self.schedule.state_dict(),
            "random": random.get_state(),
            "scale": None if self.scale is None else self.scale.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go back to what `state_dict` returned, bit for bit. Raises ValueError for another
        network's.
        """
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.schedule.load_state_dict(state["schedule"])
        random.set_state(state["random"])
        if self.scale is not None:
            self.scale.load_state_dict(state["scale"])


def count_correct(logits: Any, target: Any) -> int:
    """How many rows of logits (n, c) have their largest value at target (n,)."""
    return int((logits.array.argmax(axis=1) == target).sum())
