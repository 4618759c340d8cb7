"""Gradient clipping."""

from __future__ import annotations

import math

import numpy as np
import pytest

from minires import nn, optim
from minires.errors import NonFiniteError
from tests import tolerances
from tests.reference import optimisers
from tests.reference.store import Reference

__all__: list[str] = []

STORED = Reference("optim")


def parameters() -> dict[str, nn.Parameter]:
    params = {name: nn.Parameter(optimisers.begin(name)) for name in optimisers.SHAPES}
    for name, p in params.items():
        p.grad = optimisers.gradient(name, 0)
    return params


def test_clips_as_pytorch():
    params = parameters()
    norm = optim.clip_grad_norm_(params.values(), optimisers.MAX_NORM)
    assert isinstance(norm, float)
    assert norm == pytest.approx(float(STORED["clip/norm"][0]), rel=tolerances.FLOAT64)
    for name, p in params.items():
        if p.grad is not None:
            stored = STORED[f"clip/{name}"].reshape(p.shape)
            np.testing.assert_allclose(p.grad, stored, rtol=tolerances.FLOAT64)


def test_small_gradients_stay():
    params = parameters()
    kept = params["weight"].grad
    optim.clip_grad_norm_(params.values(), 1e6)
    assert params["weight"].grad is kept


def test_keeps_float32_and_takes_views():
    p = nn.Parameter(np.zeros((3, 2), np.float32))
    p.grad = np.broadcast_to(np.float32(2), (2, 3)).T  # read-only, not contiguous
    assert optim.clip_grad_norm_(p, 1.0) == pytest.approx(math.sqrt(24))
    assert p.grad.dtype == np.float32
    assert np.linalg.norm(p.grad) == pytest.approx(1, rel=tolerances.FLOAT32)


def test_norm_that_is_not_finite():
    p = nn.Parameter(np.zeros(2))
    p.grad = np.array([np.inf, 1.0])
    with pytest.raises(NonFiniteError, match="clip_grad_norm_: the norm of the gradients is inf"):
        optim.clip_grad_norm_([p], 1.0, error_if_nonfinite=True)
    assert optim.clip_grad_norm_([p], 1.0) == math.inf


def test_negative_max_norm():
    with pytest.raises(ValueError, match="max_norm is -1 but must be at least 0"):
        optim.clip_grad_norm_([], -1)


def test_no_gradients():
    assert optim.clip_grad_norm_([nn.Parameter(np.zeros(2))], 1.0) == 0
