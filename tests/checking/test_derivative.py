"""Numerical derivatives: accuracy on smooth functions, kinks near and exactly at the point."""

from __future__ import annotations

import numpy as np
import pytest

from minires.checking.derivative import central, kinked, refined, roundings
from tests.tolerances import NUMERIC_DERIVATIVE

__all__: list[str] = []

SMOOTH = {
    "exp": (np.exp, np.exp, 0.7),
    "sin": (np.sin, np.cos, 2.0),
    "cube": (lambda x: x**3, lambda x: 3 * x**2, -1.3),
    "logistic": (lambda x: 1 / (1 + np.exp(-x)), lambda x: np.exp(-x) / (1 + np.exp(-x)) ** 2, 0.4),
    "steep": (lambda x: np.sin(300 * x), lambda x: 300 * np.cos(300 * x), 0.1),
    "log near 0": (np.log, lambda x: 1 / x, 1e-3),
    "on an offset": (lambda x: 1e4 + x * x, lambda x: 2 * x, 0.5),
}


def at(f, x):
    """(line, roundings) of a function of one number."""
    line = lambda t: np.atleast_1d(f(x + t))  # noqa: E731
    return line, roundings([line(0.0)])


@pytest.mark.parametrize("name", ["exp", "sin", "cube", "logistic"])
def test_one_step_is_accurate_where_nothing_is_steep(name: str):
    f, slope, x = SMOOTH[name]
    assert central(at(f, x)[0], 1e-3) == pytest.approx(slope(x), rel=NUMERIC_DERIVATIVE)


@pytest.mark.parametrize("name", SMOOTH)
def test_the_ladder_resolves_steep_functions_and_offsets(name: str):
    f, slope, x = SMOOTH[name]
    with np.errstate(all="ignore"):
        derivative, error, _ = refined(*at(f, x), 1e-3)
    assert derivative == pytest.approx(slope(x), rel=10 * NUMERIC_DERIVATIVE)
    assert abs(derivative - slope(x)) <= error


@pytest.mark.parametrize("distance", [3e-3, 3e-4, 3e-5, 3e-6])
def test_a_kink_nearby_is_stepped_around(distance: float):
    line, rounding = at(lambda x: np.maximum(x, 0.0), distance)
    derivative, _, _ = refined(line, rounding, 1e-3)
    assert derivative == pytest.approx(1.0, rel=1e-7)


def test_kinks_are_told_from_curves():
    step = lambda x: np.heaviside(x, 0)  # noqa: E731
    functions = [np.abs, np.sin, np.exp, lambda x: x * x, lambda x: np.maximum(x, -x), step]
    line = lambda t: np.array([f(t) for f in functions])  # noqa: E731
    kink, left, right = kinked(line, line(0.0), roundings([line(0.0)]), 1e-3)
    assert kink.tolist() == [True, False, False, False, True, True]
    assert (left[0], right[0]) == pytest.approx((-1, 1))


def test_a_point_without_neighbours_gives_nan():
    line, rounding = at(lambda x: np.where(x == 0, 1.0, np.nan), 0.0)
    derivative, error, _ = refined(line, rounding, 1e-3)
    assert np.isnan(derivative).all()
    assert np.isinf(error).all()
