"""Each likely mistake is named from the Jacobian it makes, with its evidence."""

from __future__ import annotations

import re

import numpy as np
import pytest

from minires import gradcheck

__all__: list[str] = []

X, W = np.random.default_rng(0).standard_normal((2, 4, 4))
X[np.abs(X) < 0.1] = 0.5


def product(x, w):
    return x @ w


def message(forward, vjp, inputs=(X,), **options) -> str:
    report = gradcheck((forward, vjp), list(inputs), raise_exception=False, **options)
    assert not report
    return str(report)


MISTAKES = {
    "sign is flipped": (np.sin, lambda g, x: -g * np.cos(x)),
    r"analytic = 0.5 \* numeric = numeric / 2": (np.square, lambda g, x: g * x),
    r"= numeric / 4 \(the size of axis 0 and 1": (
        lambda x: x.sum(axis=0),
        lambda g, x: np.tile(g, (4, 1)) / 4,
    ),
    "zero everywhere: it is not propagated": (np.sin, lambda g, x: None),
    "computed in float32": (np.sin, lambda g, x: g * np.cos(x) * (1 + 3e-6 * np.sin(50 * x))),
    "reversed along axis 1": (np.sin, lambda g, x: (g * np.cos(x))[:, ::-1]),
    "reversed along axis 0 and 1": (np.sin, lambda g, x: (g * np.cos(x))[::-1, ::-1]),
    r"shifted by \+1 along axis 0": (np.sin, lambda g, x: np.roll(g * np.cos(x), 1, 0)),
    "transposed: .* in the order": (np.sin, lambda g, x: (g * np.cos(x)).T),
    "varies only along axis 1": (np.sin, lambda g, x: g * np.cos(x) * [1, 2, 3, 4]),
    "a constant is missing or added": (np.sin, lambda g, x: g * np.cos(x) + 0.3),
    "same along axis 0: a term that sums": (
        lambda x: (x - x.mean(axis=0)) * 3,
        lambda g, x: 3 * g,
    ),
    "the terms that couple elements": (lambda x: x**2 * (x**2).sum(), lambda g, x: 0 * g + g * x),
    "a mask is missing": (lambda x: np.maximum(x, 0), lambda g, x: g),
    "holds NaN or Inf": (np.sin, lambda g, x: g * np.nan),
    "wrong only where index 1 of the input is 3": (
        np.sin,
        lambda g, x: g * np.cos(x) * (1 - 0.3 * (np.arange(4) == 3) * x),
    ),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistake_is_named(mistake: str):
    text = message(*MISTAKES[mistake])
    assert re.search(mistake, text), text


def test_overwritten_instead_of_accumulated():
    taken = np.array([0, 2, 2, 1])

    def vjp(g, x):
        dx = np.zeros_like(x)
        dx[taken] = g
        return dx

    text = message(lambda x: x[taken], vjp)
    assert "overwritten instead of accumulated (= for +=)" in text
    assert "elements are 0 and the others right" in text
    assert "index 0 of the input is 2" in text


def test_transposed_names_the_input_and_not_the_other():
    text = message(product, lambda g, x, w: (g @ w.T, g.T @ x), (X, W))
    assert "input 1 is wrong" in text
    assert "input 0 is wrong" not in text
    assert "transposed: analytic is numeric with the input's axes in the order (1, 0)" in text


def test_small_jacobians_stand_side_by_side():
    x = np.array([1.0, 2.0])
    text = message(np.cumsum, lambda g, x: g, [x])
    assert "analytic                 | numeric" in text
    assert text.splitlines()[-1].split("|")[1].split() == ["1", "1"]
    assert text.count("*") == 1


def test_a_large_jacobian_shows_the_part_that_is_wrong():
    def vjp(g, x):
        dx = g * np.cos(x)
        dx[37] *= 2
        return dx

    text = message(np.sin, vjp, [np.linspace(0, 1, 50)])
    assert "input 0 is wrong in 1 of 2500 elements" in text
    assert "(outputs 33 to 40, elements 35 to 39, of (50, 50))" in text


def test_in_directions_the_gradient_of_the_projection_is_told():
    text = message(np.sin, lambda g, x: 3 * g * np.cos(x), mode="directions")
    assert "of its projected gradient" in text
    assert "analytic = 3 * numeric" in text
