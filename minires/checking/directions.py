"""Mode "directions": u' J v for random u and v, from one backward pass and a few forward passes
each.

Cheap for inputs of any size, and one wrong element among many thousands still shows, because all of
them take part. When a projection differs, halving the direction leads to the elements that are
wrong, or that sit on a kink.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from .derivative import NOISE, Line, central, kinked, refined
from .explain import explain
from .full import flat
from .patterns import likely_patterns
from .report import Element, GradcheckReport, Kink, place
from .settings import Settings, scales
from .subject import Subject

__all__ = ["check_directions"]

EPS = float(np.finfo(np.float64).eps)
SHOWN_UP_TO = 1024  # elements: a whole gradient is computed to explain a failure
SAMPLE = 64
MOST_LEAVES = 32  # wrong or kinked elements looked for in one input


class _Projection:
    """u' f(x + t v) for one variable `k` and one upstream u, with its analytic gradient g = J'
    u."""

    def __init__(
        self,
        subject: Subject,
        values: Sequence[np.ndarray],
        k: int,
        u: np.ndarray,
        g: np.ndarray,
        base: np.ndarray,
        settings: Settings,
    ) -> None:
        self.subject, self.values, self.k, self.u, self.settings = subject, values, k, u, settings
        self.g = g.ravel()
        self.base = np.array([u @ base])
        self.rounding = np.array([NOISE * EPS * float(np.abs(u) @ np.abs(base))])

    def line(self, v: np.ndarray) -> Line:
        x, moved = self.values[self.k], [*self.values]

        def line(t: float) -> np.ndarray:
            moved[self.k] = x + (t * v).reshape(x.shape)
            return np.array([self.u @ flat(self.subject.outputs(moved))])

        return line

    def compare(self, v: np.ndarray, close: bool = False) -> tuple[float, float, float]:
        """(error, analytic, numeric) along `v`; `close` takes the trouble to resolve it."""
        analytic, size = float(self.g @ v), float(np.abs(self.g) @ np.abs(v))
        h = self.settings.eps
        if close:
            (numeric,), (spread,) = refined(self.line(v), self.rounding, h)
            size = max(size, abs(float(numeric)))
            noise = min(spread, 10 * self.settings.atol_scale * size)
        else:
            (numeric,), (noise,) = central(self.line(v), h), self.rounding / h
        error = self.settings.error(analytic, numeric, size, noise)
        return float(error), analytic, float(numeric)

    def kink(self, v: np.ndarray) -> tuple[float, float] | None:
        """The slopes on both sides where they differ and the analytic one lies between."""
        (kink,), (left,), (right,) = kinked(
            self.line(v), self.base, self.rounding, self.settings.eps
        )
        slack = 1e-5 * abs(right - left)
        low, high = min(left, right) - slack, max(left, right) + slack
        return (float(left), float(right)) if kink and low <= self.g @ v <= high else None


def check_directions(
    subject: Subject,
    values: Sequence[np.ndarray],
    outputs: Sequence[np.ndarray],
    settings: Settings,
    report: GradcheckReport,
) -> None:
    """Fill in `report`."""
    rng = np.random.default_rng(settings.seed)
    base, failed = flat(outputs), set()
    for _ in range(settings.directions):
        _, vjp = subject.linearised(values, once=True)
        upstreams = [rng.standard_normal(y.shape) for y in outputs]
        for k, g in enumerate(vjp(upstreams)):
            v = rng.uniform(0.5, 1, g.size) * rng.choice([-1.0, 1.0], g.size)
            v *= scales(values[k]).ravel()
            if g.size and k not in failed:
                projection = _Projection(subject, values, k, flat(upstreams), g, base, settings)
                if not _check_one(projection, v, report):
                    failed.add(k)


def _check_one(projection: _Projection, v: np.ndarray, report: GradcheckReport) -> bool:
    """Compare along `v`; where that differs, find the elements that do."""
    rtol, name = projection.settings.rtol, projection.subject.variables[projection.k].name
    report.checked += 1
    error, analytic, numeric = projection.compare(v)
    if error > rtol:
        error, analytic, numeric = projection.compare(v, close=True)
    wrong: list[int] = []
    if error > rtol:
        wrong, complete = _search(projection, v, report)
        if not wrong:  # kinks are out of `v` now
            if complete:
                error, analytic, numeric = projection.compare(v, close=True)
            else:
                note = f"more than {MOST_LEAVES} kinks in {name}: the rest of it is not checked"
                report.notes += [note] if note not in report.notes else []
                return True
    element = Element(name, None, "", analytic, numeric)
    if error > rtol:
        report.passed = False
        element, text = _explain(projection, wrong, element)
        report.message = "\n".join(filter(None, [report.message, text]))
    if report.worst is None or error > report.max_error:
        report.worst, report.max_error = element, error
    return error <= rtol


def _search(
    projection: _Projection, v: np.ndarray, report: GradcheckReport
) -> tuple[list[int], bool]:
    """(wrong elements, whether all were looked at). Kinks go to the report, and out of `v`."""
    rtol, found = projection.settings.rtol, []
    name, x = projection.subject.variables[projection.k]
    stack, kinks = [(0, v.size)], 0
    while stack:
        low, high = stack.pop()
        part = np.zeros_like(v)
        part[low:high] = v[low:high]
        if projection.compare(part)[0] <= rtol:
            continue
        if high - low > 1:
            middle = (low + high) // 2
            stack += [(middle, high), (low, middle)]
            continue
        if projection.compare(part, close=True)[0] <= rtol:
            continue
        slopes = projection.kink(part)
        if slopes is None:
            found.append(low)
        else:
            index = tuple(int(c) for c in np.unravel_index(low, x.shape))
            left, right = (
                sorted(s / v[low] for s in slopes) if v[low] < 0 else (s / v[low] for s in slopes)
            )
            if all((kink.variable, kink.index) != (name, index) for kink in report.kinks):
                report.kinks.append(Kink(name, index, left, right, float(projection.g[low])))
            v[low], kinks = 0.0, kinks + 1
        if len(found) + kinks >= MOST_LEAVES:
            return found, False
    return found, True


def _explain(projection: _Projection, wrong: list[int], element: Element) -> tuple[Element, str]:
    """The worst element of the projected gradient, and the text about it."""
    name, x = projection.subject.variables[projection.k]
    chosen = np.arange(x.size)
    if x.size > SHOWN_UP_TO:
        rng = np.random.default_rng(projection.settings.seed)
        chosen = np.unique([*wrong[:SAMPLE], *rng.choice(x.size, SAMPLE, replace=False)])
    step, g = scales(x).ravel(), projection.g
    numeric, errors = np.empty(len(chosen)), np.empty(len(chosen))
    for position, i in enumerate(chosen):
        v = np.zeros(x.size)
        v[i] = step[i]
        error, _, slope = projection.compare(v, close=bool(i in wrong))
        numeric[position], errors[position] = slope / step[i], error
    bad = errors > projection.settings.rtol
    if not bad.any():
        return element, f"  {element}: no single element of {name} differs by itself"
    p = int(np.argmax(np.where(bad, np.abs(g[chosen] - numeric), -1)))
    index = tuple(int(c) for c in np.unravel_index(chosen[p], x.shape))
    element = Element(name, index, "", float(g[chosen[p]]), float(numeric[p]))
    a, n, wrong_row = (x.reshape(1, -1) for x in (g[chosen], numeric, bad))
    if x.size <= SHOWN_UP_TO:
        return element, explain(name, x.shape, [], a, n, wrong_row)
    lines = [f"  {place(name, index)}, outputs projected on a random direction: {element}"]
    lines += [f"    likely: {text}" for text in likely_patterns(a, n, wrong_row, a.shape[1:], [])]
    return element, "\n".join(lines)
