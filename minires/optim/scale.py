"""The scale of the loss for training in fp16."""

from __future__ import annotations

from typing import Any

from ..backend import to_device
from ..kernels.judge import judge_step, sums_of_all
from ..kernels.memory import zeros
from ..tensor import Tensor, tensor

__all__ = ["LossScale"]


class LossScale:
    """The scale, and all that is decided by it, in a GPU's memory: nothing waits for it.

    Gradients below 6e-8 are zero in fp16, so they are made larger; a step in which they get too
    large is not taken and halves the scale, and 2000 steps without one double it.

        scale = mr.optim.LossScale("cuda")
        with mr.precision("fp16", "cuda"):
            loss = F.cross_entropy(model(x), target)
            loss.backward(scale.upstream())
        optimizer.step(scale.judge)

    first: the scale at first, a power of two. clip_norm: the largest norm of gradients, without the
    scale; more is clipped.

    Source: Micikevicius et al., "Mixed precision training", ICLR 2018, section 3.2.
    """

    def __init__(
        self, device: str = "cuda", first: float = 2.0**16, clip_norm: float = float("inf")
    ) -> None:
        like = tensor([0.0], device=device).array
        self.clip_norm = clip_norm
        self.state = zeros((4,), "float64", like=like)  # see `kernels.judge.judge_step`
        self.state[2:3].fill(first)
        self._measured = zeros((8,), "float64", like=like)

    def upstream(self, dtype: Any = "float32") -> Any:
        """The scale, as what the loss's `backward` takes: an array () on the device."""
        return self.state[2:3].astype(dtype).reshape(())

    def judge(self, gradients: list[Any]) -> Any:
        """What `Optimizer.step` takes."""
        judge_step(self._measured, sums_of_all(gradients), scale=self.state, most=self.clip_norm)
        return self.state

    def read(self) -> float:
        """The scale; waits for the device."""
        return float(Tensor(self.state).numpy()[2])

    def state_dict(self) -> dict[str, Any]:
        """The state as a copied array."""
        return {"state": self.state.copy()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where `state_dict` was taken."""
        self.state[...] = to_device(state["state"], Tensor(self.state).device)
