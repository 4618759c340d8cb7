"""Train ResNet-20 for ten float64 steps in PyTorch, and one float32 step from each of its states.

    python -m tests.reference.make_training

Writes training.npz: the losses, and sketches of every parameter, momentum buffer and running
statistic after the first and the last step.
"""
# pyright: reportMissingImports=false

from __future__ import annotations

import copy

import numpy as np
import torch
import torch.nn.functional as TF

from . import pure
from .store import save
from .torch_nets import Cifar, fill, to_memory
from .training import BATCH, RECIPE, STEPS, batch

__all__ = ["main"]


def optimiser(model: torch.nn.Module) -> torch.optim.SGD:
    return torch.optim.SGD(model.parameters(), **RECIPE)


def forward(model: torch.nn.Module, step: int) -> torch.Tensor:
    images, labels = batch(step)
    x = torch.from_numpy(images).permute(0, 3, 1, 2).to(next(model.parameters()).dtype)
    return TF.cross_entropy(model(x), torch.from_numpy(labels))


def train_step(model: torch.nn.Module, opt: torch.optim.Optimizer, step: int) -> float:
    opt.zero_grad()
    loss = forward(model, step)
    loss.backward()
    opt.step()
    return loss.item()


def float32_step(model: torch.nn.Module, opt: torch.optim.SGD, step: int) -> tuple[float, float]:
    """The losses of a step from this state cast down: before it, and on its batch after it."""
    low = copy.deepcopy(model).float()
    low_opt = optimiser(low)
    for p, q in zip(model.parameters(), low.parameters()):
        if p in opt.state:
            low_opt.state[q]["momentum_buffer"] = opt.state[p]["momentum_buffer"].float()
    before = train_step(low, low_opt, step)
    with torch.no_grad():
        return before, forward(low, step).item()


def states(model: torch.nn.Module, opt: torch.optim.SGD, when: str) -> dict[str, np.ndarray]:
    found = {f"{when}/{name}": to_memory(t) for name, t in model.state_dict().items()}
    for name, p in model.named_parameters():
        found[f"{when}/momentum.{name}"] = to_memory(opt.state[p]["momentum_buffer"])
    return {key: a for key, a in found.items() if "num_batches" not in key}


def main() -> None:
    model = fill(Cifar(20)).train()
    opt = optimiser(model)
    losses, before, after = [], [], []
    kept: dict[str, np.ndarray] = {}
    for step in range(STEPS):
        low = float32_step(model, opt, step)
        before.append(low[0])
        after.append(low[1])
        losses.append(train_step(model, opt, step))
        if step in (0, STEPS - 1):
            kept |= states(model, opt, f"after step {step}")
    kept |= {"losses": np.array(losses), "before32": np.array(before), "after32": np.array(after)}
    kept["batch"] = pure.sketch(batch(0)[0])
    made_by = f"PyTorch {torch.__version__}, CPU, batches of {BATCH}"
    save("training", kept, made_by, buckets=8, kept=16)
    for row in zip(losses, before, after):
        print("{:.15f} {:.9f} {:.9f}".format(*row))


if __name__ == "__main__":
    main()
