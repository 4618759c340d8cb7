"""`curves.png`: loss and accuracy by epoch. Matplotlib costs a second to import, so only drawing
imports it.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

__all__ = ["draw_curves"]

COLOURS = {"train": "tab:blue", "val": "tab:orange", "test": "tab:green"}


def draw_curves(path: Path, records: Sequence[Mapping[str, Any]], title: str = "") -> None:
    """Draw the lines of a metrics.jsonl as a PNG (900 x 360 pixels).

    Raises ImportError without matplotlib, OSError when `path` cannot be written.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # no display, no global state
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3.6), dpi=100, layout="constrained")
    FigureCanvasAgg(figure)
    for axes, what in zip(figure.subplots(1, 2), ("loss", "accuracy"), strict=True):
        for split, colour in COLOURS.items():
            _draw_split(axes, records, split, what, colour)
        axes.set_xlabel("epoch")
        axes.set_ylabel(what)
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.grid(alpha=0.3)
        if records:
            axes.legend()
    figure.suptitle(title)
    beside = path.with_name(path.name + ".new")
    figure.savefig(beside, format="png")
    os.replace(beside, path)


def _draw_split(
    axes: Any, records: Sequence[Mapping[str, Any]], split: str, what: str, colour: str
) -> None:
    points = [(r["epoch"], r[f"{split}_{what}"]) for r in records]
    points = [(x, y) for x, y in points if y is not None]
    if not points:
        return
    xs, ys = zip(*points, strict=True)
    single = len(points) == 1  # a line of one point is invisible, and the test set is measured once
    axes.plot(xs, ys, "o" if single else "-", color=colour, label=f"{split} {ys[-1]:.3f}")
