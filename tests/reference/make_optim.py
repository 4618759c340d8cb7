"""Ask PyTorch (float64, CPU) for optimiser steps, learning rates and clipping; writes optim.npz.

python -m tests.reference.make_optim      # from the repository's root, where torch is installed
"""
# pyright: reportMissingImports=false

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from . import optimisers
from .store import save

__all__ = ["main"]


def make_parameters() -> dict[str, torch.Tensor]:
    return {n: torch.tensor(optimisers.begin(n), requires_grad=True) for n in optimisers.SHAPES}


def steps(kind: str, options: dict[str, Any]) -> dict[str, np.ndarray]:
    params = make_parameters()
    groups = [  # as `no_decay_groups` would make them
        {"params": [params["weight"]]},
        {"params": [params["bias"], params["scale"]], "weight_decay": 0.0},
    ]
    optimizer = getattr(torch.optim, kind)(groups, **options)

    def set_gradient(name: str, g: np.ndarray | None) -> None:
        params[name].grad = None if g is None else torch.tensor(g)

    return optimisers.trajectory(
        optimizer, set_gradient, lambda name: params[name].detach().numpy()
    )


def rates(make: Any) -> np.ndarray:
    optimizer = torch.optim.SGD(list(make_parameters().values()), lr=0.5)
    schedule = make(optimizer)
    found = []
    for _ in range(optimisers.LENGTH):
        found.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        if len(found) < optimisers.LENGTH:
            schedule.step()
    return np.array(found)


def warm(optimizer: Any) -> Any:
    lr = torch.optim.lr_scheduler
    parts = [
        lr.LinearLR(optimizer, start_factor=0.1, total_iters=6),
        lr.CosineAnnealingLR(optimizer, T_max=24),
    ]
    return lr.SequentialLR(optimizer, parts, milestones=[6])


def clipped() -> dict[str, np.ndarray]:
    params = make_parameters()
    for name, p in params.items():
        g = optimisers.gradient(name, 0)
        p.grad = None if g is None else torch.tensor(g)
    norm = torch.nn.utils.clip_grad_norm_(params.values(), optimisers.MAX_NORM)
    having = {name: p.grad.numpy() for name, p in params.items() if p.grad is not None}
    return {"norm": norm.numpy(), **having}


def main() -> None:
    arrays = {}
    for case, (kind, options) in optimisers.CASES.items():
        arrays |= {f"{case}/{name}": a for name, a in steps(kind, options).items()}
    for case, (_, _, kind, options) in optimisers.SCHEDULES.items():
        schedule = getattr(torch.optim.lr_scheduler, kind)
        arrays[f"rates/{case}"] = rates(lambda o, s=schedule, k=options: s(o, **k))
    arrays["rates/warmup"] = rates(warm)
    arrays |= {f"clip/{name}": a for name, a in clipped().items()}
    save("optim", arrays, f"PyTorch {torch.__version__}, float64, CPU")
    print(f"{len(arrays)} arrays")


if __name__ == "__main__":
    main()
