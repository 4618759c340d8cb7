"""What a gradient check found: the report, the failure that is raised, and the table of many
reports."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np

__all__ = [
    "Element",
    "GradcheckError",
    "GradcheckReport",
    "Kink",
    "format_table",
    "output_name",
    "place",
]

WIDEST = 60  # characters of a name in the table


def place(name: str, index: tuple[int, ...]) -> str:
    """`input 0[3, 1]`; just the name of a single number."""
    return f"{name}[{', '.join(map(str, index))}]" if index else name


def output_name(row: int, shapes: Sequence[tuple[int, ...]]) -> str:
    """The output element behind a row of the Jacobian: `output[0, 2]`, `output 1[2]` of several."""
    for i, shape in enumerate(shapes):
        size = math.prod(shape)
        if row < size:
            index = tuple(int(k) for k in np.unravel_index(row, shape))
            return place("output" if len(shapes) == 1 else f"output {i}", index)
        row -= size
    raise IndexError(row)


@dataclass(frozen=True)
class Element:
    """One element of a Jacobian: which input, which output, and both derivatives.

    output is "" where the outputs were projected on a random direction (mode "directions"); index
    is None where the wrong element could not be told.
    """

    variable: str
    index: tuple[int, ...] | None
    output: str
    analytic: float
    numeric: float

    def __str__(self) -> str:
        where = self.variable if self.index is None else place(self.variable, self.index)
        of = f"d {self.output} / d {where}" if self.output else f"projected on {where}"
        return f"{of}: analytic {self.analytic:.12g}, numeric {self.numeric:.12g}"


@dataclass(frozen=True)
class Kink:
    """An element where the function has a corner, so that no derivative exists: not counted as
    wrong."""

    variable: str
    index: tuple[int, ...]
    left: float
    right: float
    analytic: float

    def __str__(self) -> str:
        slopes = f"slope {self.left:.6g} on the left, {self.right:.6g} on the right"
        return f"kink at {place(self.variable, self.index)}: {slopes}, analytic {self.analytic:.6g}"


@dataclass
class GradcheckReport:
    """The result of one gradient check. True when it passed; `print(report)` explains it.

    max_error: the largest |analytic - numeric| / (max(|analytic|, |numeric|) + 0.01 max|J|), with
        the default tolerances; a check passes up to rtol (and up to what rounding does to the
        numeric value).
    worst: the element with that error, or None when nothing was compared.
    checked: how many elements of the Jacobian (or directional derivatives) were compared.
    mode: "full" or "directions". seconds: wall time. message: why it failed, in several lines.
    """

    name: str
    passed: bool = True
    max_error: float = 0.0
    worst: Element | None = None
    kinks: list[Kink] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    checked: int = 0
    mode: str = "full"
    seconds: float = 0.0
    message: str = ""

    def __bool__(self) -> bool:
        return self.passed

    def __str__(self) -> str:
        unit = "elements" if self.mode == "full" else "directional derivatives"
        lines = [
            f"gradcheck {self.name}: {'passed' if self.passed else 'FAILED'}: "
            f"{self.checked} {unit}, largest error {self.max_error:.2g}, {self.seconds:.2f} s"
        ]
        shown = [str(kink) for kink in self.kinks[:8]]
        if len(self.kinks) > 8:
            shown.append(f"... and {len(self.kinks) - 8} more kinks")
        return "\n".join([*lines, *(f"  {line}" for line in [*shown, *self.notes]), *self._why()])

    def _why(self) -> list[str]:
        return [self.message] if self.message else []


class GradcheckError(AssertionError):
    """A gradient is wrong, or cannot be checked. `report` holds what was found."""

    def __init__(self, message: str, report: GradcheckReport | None = None) -> None:
        super().__init__(message)
        self.report = report


def format_table(reports: Iterable[GradcheckReport]) -> str:
    """The reports as a table, a line each and one that counts; then what is wrong in the failed.

    >>> print(format_table([GradcheckReport("relu(2,3)", max_error=1e-11, checked=36)]))
    op         result  checked  largest error  kinks  seconds
    relu(2,3)  passed       36        1.0e-11      0     0.00
    1 of 1 passed
    """
    reports = list(reports)
    width = min(max([len("op"), *(len(r.name) for r in reports)]), WIDEST)
    lines = [f"{'op':{width}}  result  checked  largest error  kinks  seconds"]
    for r in reports:
        result = "passed" if r.passed else "FAILED"
        name = r.name if len(r.name) <= WIDEST else f"{r.name[: WIDEST - 3]}..."
        row = f"{name:{width}}  {result}  {r.checked:7}  {r.max_error:13.1e}  "
        lines.append(f"{row}{len(r.kinks):5}  {r.seconds:7.2f}")
    lines.append(f"{sum(map(bool, reports))} of {len(reports)} passed")
    lines += [f"\n{r}" for r in reports if not r]
    return "\n".join(lines)
