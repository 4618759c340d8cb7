"""Optimisers, learning-rate schedules, gradient clipping.

    groups = optim.no_decay_groups(model, weight_decay=5e-4)
    optimizer = optim.SGD(groups, lr=0.1, momentum=0.9, nesterov=True)
    schedule = optim.CosineLR(optimizer, total_steps=1000)

and for each batch `optimizer.zero_grad()`, `loss.backward()`, `optimizer.step()`,
`schedule.step()`.
"""

from .adam import Adam, AdamW
from .clip import clip_grad_norm_
from .muon import Muon
from .optimizer import Optimizer, no_decay_groups
from .scale import LossScale
from .schedules import CosineLR, MultiStepLR, OneCycleLR, Schedule, StepLR, WarmupLR
from .sgd import SGD

__all__ = [
    "SGD",
    "Adam",
    "AdamW",
    "CosineLR",
    "LossScale",
    "MultiStepLR",
    "Muon",
    "OneCycleLR",
    "Optimizer",
    "Schedule",
    "StepLR",
    "WarmupLR",
    "clip_grad_norm_",
    "no_decay_groups",
]
