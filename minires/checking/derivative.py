"""Numerical derivatives along a line, accurate to about ten digits, and the kinks that make them
meaningless.

A line is a function of one number, `line(t)`, that returns all outputs as one flat float64 array;
`base` is `line(0)`. Smooth functions get central differences at two steps, extrapolated (an error
of fourth order). Where that disagrees with the analytic value, `refined` walks down a ladder of
steps with sixth-order extrapolation and keeps, for each output, the estimate that agrees best with
itself: a kink that is merely near is stepped around, and a function that curves strongly is
resolved.

Sources: Richardson (1911); Ridders, "Accurate computation of F'(x) and F'(x)F''(x)", Adv. Eng.
Software 4 (1982).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

__all__ = ["EPS", "Line", "central", "kinked", "refined", "roundings"]

Line = Callable[[float], np.ndarray]

EPS = float(np.finfo(np.float64).eps)
LADDER = (1.0, 1e-1, 1e-2, 1e-3, 10.0, 1e-4)  # times the step, in the order in which they are tried
NOISE = 32.0  # roundings, in units of the largest output, that a difference may hold


def central(line: Line, h: float) -> np.ndarray:
    """The derivative at 0 from steps h and h / 2 (four calls).

    >>> round(float(central(lambda t: np.exp(np.array([t])), 1e-3)[0]), 11)
    1.0
    """
    wide = (line(h) - line(-h)) / (2 * h)
    narrow = (line(h / 2) - line(-h / 2)) / h
    return (4 * narrow - wide) / 3


def roundings(outputs: Sequence[np.ndarray]) -> np.ndarray:
    """What rounding may do to each output, one after the other; divided by a step, to its
    derivative."""
    return np.concatenate(
        [np.full(y.size, NOISE * EPS * np.abs(y).max(initial=0.0)) for y in outputs]
    )


def refined(
    line: Line,
    rounding: np.ndarray,
    h: float,
    enough: Callable[[np.ndarray, np.ndarray], bool] = lambda *_: False,
) -> tuple[np.ndarray, np.ndarray, float]:
    """(derivative, its own estimate of its error, last step) from the best rungs around step `h`.

    Stops early when `enough(derivative, estimate)`. Not finite where the function is finite on no
    rung.
    """
    step, best, error = h, np.full(rounding.shape, np.nan), np.full(rounding.shape, np.inf)
    for rung in LADDER:
        step = h * rung
        d0, d1, d2 = ((line(s) - line(-s)) / (2 * s) for s in (step, step / 2, step / 4))
        first, second = (4 * d1 - d0) / 3, (4 * d2 - d1) / 3
        estimate = (16 * second - first) / 15
        spread = np.maximum(np.abs(estimate - first), np.abs(estimate - second))
        spread = spread + rounding / step
        better = spread < error  # false where not a number
        best, error = np.where(better, estimate, best), np.where(better, spread, error)
        if enough(best, error):
            break
    return best, error, step


def kinked(
    line: Line, base: np.ndarray, rounding: np.ndarray, h: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(whether there is a kink at 0, slope from the left, slope from the right), each an array.

    On a smooth function the two slopes approach each other a hundredfold when the step shrinks
    tenfold; at a corner their difference stays, at a jump it grows.

    >>> line = lambda t: np.abs(np.array([t, t + 1]))
    >>> kink, left, right = kinked(line, line(0), roundings([line(0)]), 1e-3)
    >>> kink, left.round(6), right.round(6)
    (array([ True, False]), array([-1.,  1.]), array([1., 1.]))
    """
    far, near = h / 10, h / 100
    jumps = []
    for s in (far, near):
        right = (4 * line(s) - line(2 * s) - 3 * base) / (2 * s)
        left = (3 * base - 4 * line(-s) + line(-2 * s)) / (2 * s)
        jumps.append(np.abs(right - left))
    stays = jumps[1] > 0.3 * jumps[0]
    return stays & (jumps[1] > 10 * rounding / near), left, right
