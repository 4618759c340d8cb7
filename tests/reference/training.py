"""The training run that PyTorch and minires both do: which batches, which recipe."""

from __future__ import annotations

import numpy as np

from . import pure

__all__ = ["BATCH", "RECIPE", "STEPS", "batch"]

STEPS = 10
BATCH = 16
RECIPE = {"lr": 0.05, "momentum": 0.9, "nesterov": True, "weight_decay": 5e-4}


def batch(step: int) -> tuple[np.ndarray, np.ndarray]:
    """(BATCH, 32, 32, 3) float64 images, a pattern a class plus noise, and (BATCH,) labels."""
    labels = pure.integers(f"training.labels.{step}", (BATCH,), 10)
    patterns = pure.images("training.patterns", 10, 32)
    return patterns[labels] / 2 + pure.images(f"training.noise.{step}", BATCH, 32), labels
