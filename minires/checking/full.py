"""Mode "full": every element of the Jacobian, analytic rows from unit upstreams against numeric
columns.

The analytic Jacobian comes from one run and many backward passes; a last pass with a random
upstream checks that the gradient is linear in it, and that a graph that is freed on the way gives
the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from .derivative import EPS, Line, central, kinked, refined, roundings
from .explain import explain
from .report import Element, GradcheckReport, Kink, output_name, place
from .settings import Settings, scales
from .subject import Subject, Vjp

__all__ = ["check_full", "element_line", "flat"]

CONFIRMED = 4  # wrong columns that are looked at closely before the rest is believed to be wrong
LINEAR = 1e-10  # relative: the gradient for a sum of upstreams against the sum of gradients


def flat(outputs: Sequence[np.ndarray]) -> np.ndarray:
    """All outputs as one array."""
    return np.concatenate([y.ravel() for y in outputs])


def element_line(subject: Subject, values: Sequence[np.ndarray], k: int, i: int) -> Line:
    """The outputs as a function of what is added to element `i` of variable `k`."""
    moved = [*values]
    moved[k] = values[k].copy()
    start = values[k].flat[i]

    def line(t: float) -> np.ndarray:
        moved[k].flat[i] = start + t
        return flat(subject.outputs(moved))

    return line


def check_full(
    subject: Subject,
    values: Sequence[np.ndarray],
    outputs: Sequence[np.ndarray],
    settings: Settings,
    report: GradcheckReport,
) -> None:
    """Fill in `report`."""
    _, vjp = subject.linearised(values, once=False)
    analytic = _jacobians(vjp, values, outputs)
    for k in range(len(values)):
        _check_variable(subject, values, outputs, k, analytic[k], settings, report)
    if report.passed:
        _check_linear(subject, values, analytic, settings, report)


def _jacobians(
    vjp: Vjp, values: Sequence[np.ndarray], outputs: Sequence[np.ndarray]
) -> list[np.ndarray]:
    """For each variable the analytic Jacobian (outputs, elements)."""
    rows = sum(y.size for y in outputs)
    jacobians = [np.empty((rows, v.size)) for v in values]
    upstreams, row = [np.zeros(y.shape) for y in outputs], 0
    for u in upstreams:
        for j in range(u.size):
            u.flat[j] = 1
            for jacobian, g in zip(jacobians, vjp(upstreams)):
                jacobian[row] = g.ravel()
            u.flat[j] = 0
            row += 1
    return jacobians


def _check_variable(
    subject: Subject,
    values: Sequence[np.ndarray],
    outputs: Sequence[np.ndarray],
    k: int,
    analytic: np.ndarray,
    settings: Settings,
    report: GradcheckReport,
) -> None:
    """Compare the Jacobian of variable `k`: a quick pass, and a close look where they differ."""
    rounding = roundings(outputs)
    steps = settings.eps * scales(values[k]).ravel()
    numeric, noise = np.empty_like(analytic), np.empty_like(analytic)
    for i, h in enumerate(steps):
        numeric[:, i] = central(element_line(subject, values, k, i), h)
        noise[:, i] = rounding / h
    size = float(np.abs(numeric).max(initial=0.0, where=np.isfinite(numeric)))
    error = settings.error(analytic, numeric, size, noise)
    confirmed = 0
    for i in np.argsort(-error.max(axis=0, initial=0.0), kind="stable"):
        if error[:, i].max(initial=0.0) <= settings.rtol or confirmed == CONFIRMED:
            break
        column = _Column(subject, k, int(i), analytic[:, i], size, settings)
        line = element_line(subject, values, k, int(i))
        numeric[:, i], error[:, i] = column.resolve(
            line, flat(outputs), rounding, float(steps[i]), report
        )
        confirmed += bool((error[:, i] > settings.rtol).any())
    report.checked += error.size
    _conclude(subject, outputs, k, analytic, numeric, error, settings, report)


class _Column(NamedTuple):
    """One column of a Jacobian that the quick pass finds wrong."""

    subject: Subject
    k: int
    i: int
    analytic: np.ndarray
    size: float  # of the Jacobian's largest element
    settings: Settings

    def error(self, numeric: np.ndarray, spread: np.ndarray) -> np.ndarray:
        noise = np.minimum(spread, 10 * self.settings.atol_scale * self.size)
        return self.settings.error(self.analytic, numeric, self.size, noise)

    def resolve(
        self, line: Line, base: np.ndarray, rounding: np.ndarray, h: float, report: GradcheckReport
    ) -> tuple[np.ndarray, np.ndarray]:
        """(numeric, error) with as many steps as it takes; a kink goes to the report."""
        rtol, a = self.settings.rtol, self.analytic
        agrees = lambda *found: bool((self.error(*found) <= rtol).all())  # noqa: E731
        numeric, spread, _ = refined(line, rounding, h, agrees)
        error = self.error(numeric, spread)
        wrong = error > rtol
        if not wrong.any():
            return numeric, error
        kinks, left, right = kinked(line, base, rounding, h)
        slack = self.settings.allowed(left, right, self.size, 0.0) + 1e-5 * np.abs(right - left)
        inside = (a >= np.minimum(left, right) - slack) & (a <= np.maximum(left, right) + slack)
        name, value = self.subject.variables[self.k]
        index = tuple(int(c) for c in np.unravel_index(self.i, value.shape))
        for rows, passes in ((wrong & kinks & inside, True), (wrong & kinks & ~inside, False)):
            if rows.any():
                j = int(np.argmax(rows))
                kink = Kink(name, index, float(left[j]), float(right[j]), float(a[j]))
                if passes:
                    report.kinks.append(kink)
                    numeric[rows], error[rows] = a[rows], 0.0
                else:
                    report.notes.append(f"{kink}: not between the slopes")
        return numeric, error


def _conclude(
    subject: Subject,
    outputs: Sequence[np.ndarray],
    k: int,
    analytic: np.ndarray,
    numeric: np.ndarray,
    error: np.ndarray,
    settings: Settings,
    report: GradcheckReport,
) -> None:
    if not error.size:
        return
    name, value = subject.variables[k]
    # among the wrong ones, name the largest difference: its digits say most
    apart = np.where(error > settings.rtol, np.abs(analytic - numeric), -1)
    j, i = np.unravel_index(int(np.argmax(error if apart.max() < 0 else apart)), error.shape)
    if report.worst is None or error.max() > report.max_error:
        index = tuple(int(c) for c in np.unravel_index(i, value.shape))
        where = output_name(int(j), [y.shape for y in outputs])
        worst = Element(name, index, where, float(analytic[j, i]), float(numeric[j, i]))
        report.worst, report.max_error = worst, float(error.max())
    wrong = error > settings.rtol
    if wrong.any():
        report.passed = False
        shapes = [y.shape for y in outputs]
        text = explain(name, value.shape, shapes, analytic, numeric, wrong)
        report.message = "\n".join(filter(None, [report.message, text]))


def _check_linear(
    subject: Subject,
    values: Sequence[np.ndarray],
    analytic: Sequence[np.ndarray],
    settings: Settings,
    report: GradcheckReport,
) -> None:
    rng = np.random.default_rng(settings.seed)
    outputs, vjp = subject.linearised(values, once=True)
    upstreams = [rng.standard_normal(y.shape) for y in outputs]
    u = flat(upstreams)
    floor = EPS * float(np.abs(u).sum()) * max(1.0, *(np.abs(y).max(initial=0.0) for y in outputs))
    size = max(np.abs(jacobian).max(initial=0.0) for jacobian in analytic)
    for (name, value), jacobian, g in zip(subject.variables, analytic, vjp(upstreams)):
        expected = u @ jacobian
        allowed = LINEAR * (np.abs(u) @ np.abs(jacobian) + size) + 1e3 * floor
        wrong = ~(np.abs(g.ravel() - expected) <= allowed)
        if wrong.any():
            i = int(np.argmax(wrong))
            where = place(name, tuple(int(c) for c in np.unravel_index(i, value.shape)))
            report.passed = False
            report.message += (
                f"  the gradient of {where} is not linear in the upstream: a random upstream gives "
                f"{g.flat[i]:.12g}, its single elements add up to {expected[i]:.12g}"
            )
            report.worst = Element(name, None, "", float(g.flat[i]), float(expected[i]))
