"""What is optimised and with which options, for PyTorch and for minires alike.

Three parameters take `STEPS` steps with gradients that are pure functions of name and step. "bias"
has none in step 1 (counted from 0), "scale" has its first in step 2, and from step 3 the learning
rate is half.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from . import pure

__all__ = ["CASES", "MAX_NORM", "SCHEDULES", "SHAPES", "STEPS", "begin", "gradient", "trajectory"]

STEPS = 5
MAX_NORM = 1.5
SHAPES = {"weight": (3, 4), "bias": (5,), "scale": ()}

CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "sgd": ("SGD", {"lr": 0.1}),
    "sgd decay": ("SGD", {"lr": 0.1, "weight_decay": 0.01}),
    "sgd momentum": ("SGD", {"lr": 0.1, "momentum": 0.9}),
    "sgd dampening": ("SGD", {"lr": 0.1, "momentum": 0.9, "dampening": 0.3, "weight_decay": 0.01}),
    "sgd nesterov": ("SGD", {"lr": 0.1, "momentum": 0.9, "nesterov": True, "weight_decay": 0.01}),
    "adam": ("Adam", {"lr": 0.01}),
    "adam decay": ("Adam", {"lr": 0.01, "weight_decay": 0.1, "betas": (0.8, 0.95), "eps": 1e-3}),
    "adamw": ("AdamW", {"lr": 0.01}),
    "adamw decay": ("AdamW", {"lr": 0.01, "weight_decay": 0.1, "betas": (0.8, 0.95), "eps": 1e-3}),
}

# ours and PyTorch's arguments; the optimiser begins at learning rate 0.5
SCHEDULES: dict[str, tuple[str, dict[str, Any], str, dict[str, Any]]] = {
    "step": ("StepLR", {"step_size": 7, "gamma": 0.3}, "StepLR", {"step_size": 7, "gamma": 0.3}),
    "multistep": ("MultiStepLR", {"milestones": [3, 9]}, "MultiStepLR", {"milestones": [3, 9]}),
    "cosine": (
        "CosineLR",
        {"total_steps": 30, "min_lr": 0.01},
        "CosineAnnealingLR",
        {"T_max": 30, "eta_min": 0.01},
    ),
    "onecycle": (
        "OneCycleLR",
        {"max_lr": 2.0, "total_steps": 31},
        "OneCycleLR",
        {"max_lr": 2.0, "total_steps": 31},
    ),
    "onecycle linear": (
        "OneCycleLR",
        {"max_lr": 2.0, "total_steps": 31, "pct_start": 0.45, "anneal_strategy": "linear"},
        "OneCycleLR",
        {"max_lr": 2.0, "total_steps": 31, "pct_start": 0.45, "anneal_strategy": "linear"},
    ),
}
LENGTH = 31  # rates stored of each


def begin(name: str) -> np.ndarray:
    """The value of a parameter before the first step."""
    return pure.values(f"optim.{name}", SHAPES[name])


def gradient(name: str, step: int) -> np.ndarray | None:
    """The gradient of a parameter in a step."""
    if (name, step) in {("bias", 1), ("scale", 0), ("scale", 1)}:
        return None
    return pure.values(f"optim.{name}.{step}", SHAPES[name])


def trajectory(
    optimizer: Any, set_gradient: Callable[[str, Any], None], read: Callable[[str], np.ndarray]
) -> dict[str, np.ndarray]:
    """The values (STEPS, ...) of each parameter after each step of either library's `optimizer`."""
    values: dict[str, list[np.ndarray]] = {name: [] for name in SHAPES}
    for step in range(STEPS):
        if step == 3:
            for group in optimizer.param_groups:
                group["lr"] *= 0.5
        for name in SHAPES:
            set_gradient(name, gradient(name, step))
        optimizer.step()
        for name, taken in values.items():
            taken.append(np.array(read(name)))
    return {name: np.stack(taken) for name, taken in values.items()}
