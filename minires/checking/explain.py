"""The text of a failed check: which element, which likely mistake, and both Jacobians side by
side."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from .patterns import likely_patterns, where_wrong
from .report import output_name, place

__all__ = ["explain"]

ROWS, COLUMNS = 8, 5  # of a Jacobian that are printed


def explain(
    name: str,
    shape: tuple[int, ...],
    out_shapes: Sequence[tuple[int, ...]],
    analytic: np.ndarray,
    numeric: np.ndarray,
    wrong: np.ndarray,
) -> str:
    """Several lines about one variable; the arrays are (outputs, elements).

    An empty `out_shapes` says that the outputs were projected and there is one row.
    """
    apart = np.where(wrong, np.abs(analytic - numeric), -1)
    finite = np.isfinite(analytic) & np.isfinite(numeric)
    apart[wrong & ~finite] = np.inf
    j, i = (int(k) for k in np.unravel_index(int(np.argmax(apart)), wrong.shape))
    index = tuple(int(k) for k in np.unravel_index(i, shape))
    of = f", {output_name(j, out_shapes)}" if out_shapes else ""
    values = f"analytic {analytic[j, i]:.12g}, numeric {numeric[j, i]:.12g}"
    what = "Jacobian" if out_shapes else "projected gradient"
    lines = [
        f"  {name} is wrong in {np.count_nonzero(wrong)} of {wrong.size} elements of its {what}",
        f"    at {place(name, index)}{of}: {values}",
    ]
    lines += [f"    likely: {p}" for p in likely_patterns(analytic, numeric, wrong, shape)]
    where = where_wrong(wrong, shape, out_shapes)
    lines += [f"    {where}"] if where else []
    return "\n".join(lines + _side_by_side(analytic, numeric, wrong, j, i))


def _side_by_side(
    analytic: np.ndarray, numeric: np.ndarray, wrong: np.ndarray, j: int, i: int
) -> list[str]:
    """Both matrices, or the window around (j, i) of large ones; a star marks what is wrong."""
    analytic, numeric = analytic + 0.0, numeric + 0.0  # no -0
    top, bottom = _window(j, wrong.shape[0], ROWS)
    left, right = _window(i, wrong.shape[1], COLUMNS)
    part = ""
    if (bottom - top, right - left) != wrong.shape:
        part = f" (outputs {top} to {bottom - 1}, elements {left} to {right - 1}, of {wrong.shape})"
    lines, half = [], 12 * (right - left)
    lines.append(f"    {'analytic' + part:{half}} | numeric")
    for row in range(top, bottom):
        columns = range(left, right)
        first = "".join(f"{analytic[row, k]:10.4g}{'* '[not wrong[row, k]]} " for k in columns)
        second = "".join(f"{numeric[row, k]:10.4g}  " for k in columns)
        lines.append(f"    {first}| {second.rstrip()}")
    return lines


def _window(center: int, size: int, wanted: int) -> tuple[int, int]:
    start = min(max(center - wanted // 2, 0), max(size - wanted, 0))
    return start, min(start + wanted, size)
