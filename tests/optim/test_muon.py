"""Muon: what its polynomial does to singular values, its steps, groups, state and threads."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest

import minires as mr
from minires import nn, optim
from minires.optim.muon import orthogonalised
from tests import tolerances

__all__: list[str] = []


def expected(g: np.ndarray, iterations: int = 3) -> np.ndarray:
    """The same by the singular values themselves."""
    u, s, v = np.linalg.svd(g.astype(np.float64), full_matrices=False)
    s = s / (np.sqrt((s * s).sum()) + 1e-7)
    for _ in range(iterations):
        s = 3.4445 * s - 4.7750 * s**3 + 2.0315 * s**5
    return (u * s) @ v


@pytest.mark.parametrize("shape", [(1, 1), (1, 5), (7, 1), (4, 4), (27, 16), (16, 40), (288, 32)])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_singular_values_come_near_1(shape: tuple[int, int], dtype: Any, rng):
    tolerance = tolerances.FLOAT32 if dtype == np.float32 else tolerances.ROUNDINGS64
    g = rng.standard_normal(shape).astype(dtype)
    found = orthogonalised(g)
    assert found.dtype == dtype
    np.testing.assert_allclose(found, expected(g), atol=10 * tolerance)
    np.testing.assert_allclose(
        orthogonalised(g[:, ::-1]), expected(g[:, ::-1]), atol=10 * tolerance
    )
    for scale in (1e-3, 1e6):  # of a gradient does not matter
        np.testing.assert_allclose(orthogonalised(g * dtype(scale)), found, atol=1e-3)


def test_zeros_stay_zeros():
    np.testing.assert_array_equal(orthogonalised(np.zeros((3, 4), np.float32)), np.zeros((3, 4)))


@pytest.mark.parametrize("nesterov", [False, True])
def test_steps_by_hand(nesterov: bool, rng):
    conv = nn.Conv2d(3, 5, 3, bias=False).to(np.float64)
    optimizer = optim.Muon([conv.weight], 0.1, momentum=0.5, nesterov=nesterov)
    w, m = conv.weight.numpy().reshape(27, 5).copy(), np.zeros((27, 5))
    for _ in range(3):
        g = rng.standard_normal((27, 5))
        conv.weight.grad = g.reshape(conv.weight.shape)
        optimizer.step()
        m = 0.5 * m + g
        w = w * np.sqrt(5) / np.linalg.norm(w)
        w = w - 0.1 * expected(g + 0.5 * m if nesterov else m)
        found = conv.weight.numpy().reshape(27, 5)
        np.testing.assert_allclose(found, w, atol=tolerances.ROUNDINGS64)


def model(rng: np.random.Generator) -> tuple[Any, Any]:
    """Two convolutions, a BatchNorm and a classifier with gradients, and their optimiser."""
    mr.manual_seed(3)
    net = nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Conv2d(8, 70, 1), nn.Linear(70, 2)
    )
    for p in net.parameters():
        p.grad = rng.standard_normal(p.shape).astype(p.dtype)
    matrices = [net[0].weight, net[2].weight]
    rest = [p for p in net.parameters() if all(p is not q for q in matrices)]
    groups = [{"params": matrices}, {"params": rest, "lr": 0.2, "orthogonal": False}]
    return net, optim.Muon(groups, 0.05, momentum=0.9, weight_decay=1e-3)


def test_other_groups_are_sgds(rng):
    optimizer = model(rng)[1]
    rest = optimizer.param_groups[1]["params"]
    twins = [nn.Parameter(p.numpy().copy()) for p in rest]
    sgd = optim.SGD(twins, 0.2, momentum=0.9, nesterov=True, weight_decay=1e-3)
    for _ in range(3):
        for p, twin in zip(rest, twins, strict=True):
            twin.grad = p.grad
        optimizer.step()
        sgd.step()
    for p, twin in zip(rest, twins, strict=True):
        np.testing.assert_array_equal(p.numpy(), twin.numpy())


def test_it_goes_on_from_saved_state(rng):
    net, optimizer = model(rng)
    optimizer.step()
    state, weights = optimizer.state_dict(), [p.numpy().copy() for p in net.parameters()]
    optimizer.step()
    again, other = model(np.random.default_rng(5))
    for p, kept, grad in zip(again.parameters(), weights, net.parameters(), strict=True):
        p.assign(kept)
        p.grad = grad.grad
    other.load_state_dict(state)
    other.step()
    for p, q in zip(again.parameters(), net.parameters(), strict=True):
        np.testing.assert_array_equal(p.numpy(), q.numpy())


def test_a_matrix_without_gradient_stays(rng):
    net, optimizer = model(rng)
    net[2].weight.grad = None
    before = net[2].weight.numpy().copy()
    optimizer.step()
    np.testing.assert_array_equal(net[2].weight.numpy(), before)


def test_what_it_refuses():
    bias = nn.Linear(3, 2).bias
    with pytest.raises(ValueError, match=re.escape("a parameter of shape (2,) is no matrix")):
        optim.Muon([bias], 0.1)
    with pytest.raises(
        ValueError, match="Muon: nesterov needs momentum above 0 and dampening 0, got"
    ):
        optim.Muon([{"params": [bias], "orthogonal": False}], 0.1, momentum=0.0)
