"""The fused optimiser kernels: twins, loops over single numbers, any number of threads."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pytest

from minires.kernels import optim
from minires.kernels.dispatch import KERNELS, ran, reference
from minires.kernels.memory import set_threads
from tests import tolerances

__all__: list[str] = []

DTYPES = [np.float32, np.float64]
IN_PLACE = [
    pytest.param(name, case, id=f"{name}-{number}")
    for name in ("sgd_step", "adam_step")
    for number, case in enumerate(KERNELS[name].cases)
]
STEP = {"lr": 0.1, "momentum": 0.9, "dampening": 0.0, "weight_decay": 0.01, "nesterov": False}


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("name", "case"), IN_PLACE)
def test_twin_equals_reference_to_the_last_bit(name: str, case: Any, dtype: Any):
    kernel = KERNELS[name]
    ours, theirs = (case.arrays(np.random.default_rng(0), dtype) for _ in range(2))
    with ran() as log:
        outputs = kernel(*ours, **case.params)
    assert log == [(name, "cpu")]
    with reference(), ran() as log:
        kernel(*theirs, **case.params)
    assert log == [(name, "reference")]
    for a, b in zip(ours, theirs, strict=True):
        np.testing.assert_array_equal(a, b)
    written = [a for i, a in enumerate(ours) if i != 1 and a is not None]
    assert all(out is a for out, a in zip(outputs, written, strict=True))
    assert all(a.dtype == dtype for a in written)


@pytest.mark.parametrize(
    ("momentum", "dampening", "nesterov", "first"),
    [(0.0, 0.0, False, False), (0.9, 0.3, False, False), (0.9, 0.0, True, True)],
)
def test_sgd_step_against_a_loop(rng, momentum, dampening, nesterov, first):
    w, g, m = rng.standard_normal((3, 7))
    m = None if momentum == 0 else m
    expected_w, expected_m = [], []
    for i in range(7):
        d = g[i] + 0.01 * w[i]
        if m is not None:
            expected_m.append(d if first else momentum * m[i] + (1 - dampening) * d)
            d = d + momentum * expected_m[i] if nesterov else expected_m[i]
        expected_w.append(w[i] - 0.1 * d)
    params = {"momentum": momentum, "dampening": dampening, "nesterov": nesterov, "first": first}
    optim.sgd_step(w, g, m, **STEP | params)
    np.testing.assert_allclose(w, expected_w, rtol=tolerances.ROUNDINGS64)
    if m is not None:
        np.testing.assert_allclose(m, expected_m, rtol=tolerances.ROUNDINGS64)


@pytest.mark.parametrize("decoupled", [False, True])
def test_adam_step_against_a_loop(rng, decoupled):
    w, g, m = rng.standard_normal((3, 7))
    v = rng.uniform(0.1, 1, 7)
    lr, decay, eps = 0.01, 0.1, 1e-3
    expected = []
    for i in range(7):
        d = g[i] + (0 if decoupled else decay * w[i])
        start = w[i] * (1 - lr * decay) if decoupled else w[i]
        mean = 0.8 * m[i] + 0.2 * d
        square = 0.95 * v[i] + 0.05 * d * d
        mean_hat, square_hat = mean / (1 - 0.8**3), square / (1 - 0.95**3)
        expected.append((start - lr * mean_hat / (math.sqrt(square_hat) + eps), mean, square))
    beta = {"beta1": 0.8, "beta2": 0.95}
    optim.adam_step(
        w, g, m, v, step=3, lr=lr, eps=eps, weight_decay=decay, decoupled=decoupled, **beta
    )
    np.testing.assert_allclose(np.stack([w, m, v], 1), expected, rtol=tolerances.ROUNDINGS64)


def test_first_step_does_not_read_the_momentum():
    w, g = np.ones((2, 3), np.float32)
    for run in (optim.sgd_step, optim.sgd_step.reference):
        m = np.full(3, np.nan, np.float32)
        run(w, g, m, **STEP, first=True)
        assert np.isfinite(m).all()
        assert np.isfinite(w).all()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("size", [1, 37, optim.CHUNK, optim.CHUNK + 1, 5 * optim.CHUNK - 3])
def test_squared_norm_is_the_same_for_any_number_of_threads(rng, thread_counts, dtype, size):
    g = rng.standard_normal(size).astype(dtype)
    found = set()
    for count, _ in itertools.product(thread_counts, range(3)):
        set_threads(count)
        found.add(optim.squared_norm(g))
    assert len(found) == 1
    exact = math.fsum(float(x) ** 2 for x in g)
    assert found.pop() == pytest.approx(exact, rel=tolerances.FLOAT64)
    with reference():
        assert optim.squared_norm(g) == pytest.approx(exact, rel=tolerances.FLOAT64)


def test_squared_norm_keeps_nan_and_does_not_overflow():
    assert math.isnan(optim.squared_norm(np.array([1, np.nan], np.float32)))
    assert optim.squared_norm(np.full(2, 1e30, np.float32)) == pytest.approx(2e60)


def test_other_arrays_go_to_the_reference(rng):
    with ran() as log:
        optim.squared_norm(rng.standard_normal(8)[::2])
    assert log == [("squared_norm", "reference")]
