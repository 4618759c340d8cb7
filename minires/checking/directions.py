"""Mode "directions": u' J v for random u and v, from one backward pass and a few forward passes.

Cheap for inputs of any size, and one wrong element among many thousands still shows, because all of
them take part. When a projection differs, halving the direction leads to the elements that are
wrong, or that sit on a kink.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from .derivative import EPS, NOISE, Line, central, kinked, refined
from .explain import explain
from .full import flat
from .patterns import likely_patterns
from .report import Element, GradcheckReport, Kink, place
from .settings import Settings, scales
from .subject import Subject

__all__ = ["check_directions"]

SHOWN_UP_TO = 1024  # elements: a whole gradient is computed to explain a failure
SAMPLE = 64
MOST_LEAVES = 32  # wrong or kinked elements looked for in one input
MOST_TESTS = 1500  # comparisons spent on looking
SEARCH = 1e-3  # the step of the search, relative to the first: kinks nearby must not mislead it


class _Projection:
    """u' f(x + t v) for a variable `k` and an upstream u, with the analytic gradient g = J' u."""

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
        self.name, self.x = subject.variables[k]
        self.g = g.ravel()
        self.base = np.array([(u * base).sum()])
        self.rounding = np.array([NOISE * EPS * float(np.abs(u) @ np.abs(base))])

    def line(self, v: np.ndarray) -> Line:
        moved = [*self.values]

        def line(t: float) -> np.ndarray:
            moved[self.k] = self.x + (t * v).reshape(self.x.shape)
            # not a product of BLAS: this sums in pairs, rounds less and wakes no threads
            return np.array([(self.u * flat(self.subject.outputs(moved))).sum()])

        return line

    def quick(self, v: np.ndarray, h: float) -> tuple[float, float]:
        """(error, numeric) along `v` from one step."""
        numeric = central(self.line(v), h)
        return float(self._error(v, numeric, self.rounding / h)[0]), float(numeric[0])

    def close(self, v: np.ndarray) -> tuple[float, float, float]:
        """(error, numeric, step) along `v`, with as many steps as it takes."""
        allowed = 10 * self.settings.atol_scale * float(np.abs(self.g) @ np.abs(v))

        def agrees(numeric: np.ndarray, spread: np.ndarray) -> bool:
            error = self._error(v, numeric, np.minimum(spread, allowed))
            return bool(error[0] <= self.settings.rtol)

        numeric, spread, step = refined(self.line(v), self.rounding, self.settings.eps, agrees)
        error = self._error(v, numeric, np.minimum(spread, allowed))
        return float(error[0]), float(numeric[0]), step

    def _error(self, v: np.ndarray, numeric: np.ndarray, noise: np.ndarray) -> np.ndarray:
        size = float(np.abs(self.g) @ np.abs(v))
        return self.settings.error(self.g @ v, numeric, size, noise)

    def kink(self, i: int, step: float) -> Kink | None:
        """The kink at element `i`, if there is one and the gradient lies between the slopes."""
        v = np.zeros(self.x.size)
        v[i] = step
        (kink,), *sides = kinked(self.line(v), self.base, self.rounding, self.settings.eps)
        left, right = (float(side[0]) / step for side in sides)
        slack = 1e-5 * abs(right - left)
        if not kink or not min(left, right) - slack <= self.g[i] <= max(left, right) + slack:
            return None
        return Kink(self.name, self.index(i), left, right, float(self.g[i]))

    def index(self, i: int) -> tuple[int, ...]:
        return tuple(int(c) for c in np.unravel_index(i, self.x.shape))


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
    steps = dict.fromkeys(range(len(values)), settings.eps)  # what resolved each variable last
    for _ in range(settings.directions):
        _, vjp = subject.linearised(values, once=True)
        upstreams = [rng.standard_normal(y.shape) for y in outputs]
        for k, g in enumerate(vjp(upstreams)):
            v = rng.uniform(0.5, 1, g.size) * rng.choice([-1.0, 1.0], g.size)
            v *= scales(values[k]).ravel()
            if g.size and k not in failed:
                projection = _Projection(subject, values, k, flat(upstreams), g, base, settings)
                steps[k] = _check_one(projection, v, steps[k], report)
                failed |= set() if steps[k] else {k}


def _check_one(projection: _Projection, v: np.ndarray, h: float, report: GradcheckReport) -> float:
    """Compare along `v`, first with step `h`; the step that resolved it, or 0 where it is wrong."""
    rtol, name = projection.settings.rtol, projection.name
    report.checked += 1
    error, numeric = projection.quick(v, h)
    if error > rtol:
        error, numeric, h = projection.close(v)
    wrong: list[int] = []
    if error > rtol:
        v = v.copy()
        wrong, kinks = _search(projection, v, report)  # takes the kinks out of `v`
        if kinks and not wrong:
            if kinks == MOST_LEAVES:
                note = f"{kinks} kinks or more in {name}: the rest of it is not checked"
                report.notes += [note] if note not in report.notes else []
                return h
            error, numeric, h = projection.close(v)
    element = Element(name, None, "", float(projection.g @ v), numeric)
    if error > rtol:
        report.passed, h = False, 0.0
        element, text = _explain(projection, wrong, element)
        report.message = "\n".join(filter(None, [report.message, text]))
    if report.worst is None or error > report.max_error:
        report.worst, report.max_error = element, error
    return h


def _search(
    projection: _Projection, v: np.ndarray, report: GradcheckReport
) -> tuple[list[int], int]:
    """(wrong elements, number of kinks), as far as found; kinks go to the report, out of `v`."""
    rtol, h, wrong, kinks = projection.settings.rtol, projection.settings.eps * SEARCH, [], 0
    stack = [(0, v.size)]
    for _ in range(MOST_TESTS):
        if not stack or len(wrong) + kinks == MOST_LEAVES:
            break
        low, high = stack.pop()
        part = np.zeros_like(v)
        part[low:high] = v[low:high]
        if projection.quick(part, h)[0] <= rtol:
            continue
        if high - low > 1:
            middle = (low + high) // 2
            stack += [(middle, high), (low, middle)]
        elif projection.close(part)[0] > rtol:
            kink = projection.kink(low, abs(v[low]))
            if kink is None:
                wrong.append(low)
            else:
                report.kinks += [kink] if all(kink.index != k.index for k in report.kinks) else []
                v[low], kinks = 0.0, kinks + 1
    return wrong, kinks


def _explain(projection: _Projection, wrong: list[int], element: Element) -> tuple[Element, str]:
    """The worst element of the projected gradient, and the text about it."""
    x, g, size = projection.x, projection.g, projection.x.size
    chosen = np.arange(size)
    if size > SHOWN_UP_TO:
        rng = np.random.default_rng(projection.settings.seed)
        chosen = np.unique([*wrong[:SAMPLE], *rng.choice(size, SAMPLE, replace=False)])
    step = scales(x).ravel()
    numeric, errors = np.empty(len(chosen)), np.empty(len(chosen))
    for position, i in enumerate(chosen):
        v = np.zeros(size)
        v[i] = step[i]
        errors[position], slope = projection.quick(v, projection.settings.eps)
        if errors[position] > projection.settings.rtol:
            errors[position], slope, _ = projection.close(v)
        numeric[position] = slope / step[i]
    bad = errors > projection.settings.rtol
    if not bad.any():
        return element, f"  {element}; no single element differs by itself"
    p = int(np.argmax(np.where(bad, np.abs(g[chosen] - numeric), -1)))
    index = projection.index(int(chosen[p]))
    element = Element(projection.name, index, "", float(g[chosen[p]]), float(numeric[p]))
    a, n, where = (row.reshape(1, -1) for row in (g[chosen], numeric, bad))
    if size <= SHOWN_UP_TO:
        return element, explain(projection.name, x.shape, [], a, n, where)
    values = f"analytic {element.analytic:.12g}, numeric {element.numeric:.12g}"
    lines = [
        f"  {projection.name} is wrong in {np.count_nonzero(bad)} of {bad.size} elements sampled",
        f"    at {place(projection.name, index)}, outputs projected: {values}",
    ]
    lines += [f"    likely: {text}" for text in likely_patterns(a, n, where, a.shape[1:])]
    return element, "\n".join(lines)
