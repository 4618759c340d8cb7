"""`curves.png`, loss and accuracy by epoch, and confusion matrices. Matplotlib costs a second to
import, so only drawing imports it.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

__all__ = ["draw_comparison", "draw_confusion", "draw_curves"]

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
    _save(figure, path)


def draw_comparison(path: Path, runs: Mapping[str, Sequence[Mapping[str, Any]]]) -> None:
    """Draw the metrics of several runs over each other: training loss, and the share of errors in
    training (thin) and validation (thick), as a PNG.

    Raises ImportError without matplotlib, OSError when `path` cannot be written.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 4.4), dpi=100, layout="constrained")
    FigureCanvasAgg(figure)
    losses, errors = figure.subplots(1, 2)
    for number, (name, records) in enumerate(runs.items()):
        colour, epochs = f"C{number % 10}", [record["epoch"] for record in records]
        losses.plot(epochs, [r["train_loss"] for r in records], color=colour, label=name)
        thin = [100 - 100 * record["train_accuracy"] for record in records]
        errors.plot(epochs, thin, color=colour, linewidth=0.8, linestyle="--")
        known = [r for r in records if r["val_accuracy"] is not None]
        thick = [100 - 100 * record["val_accuracy"] for record in known]
        errors.plot([r["epoch"] for r in known], thick, color=colour, linewidth=2, label=name)
    for axes, what in ((losses, "training loss"), (errors, "errors, %: training dashed")):
        axes.set_xlabel("epoch")
        axes.set_ylabel(what)
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.grid(alpha=0.3)
    if runs:
        errors.legend(fontsize="small")
    _save(figure, path)


def draw_confusion(
    path: Path, confusion: Sequence[Sequence[int]], classes: Sequence[str], title: str = ""
) -> None:
    """Draw counts of images by class (row) and answer (column) as a PNG, each row by its share;
    with the numbers for up to 20 classes.

    Raises ImportError without matplotlib, OSError when `path` cannot be written.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    count = len(classes)
    side = 3 + 0.5 * min(count, 20)
    figure = Figure(figsize=(side, side), dpi=100, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    shares = [[value / max(sum(row), 1) for value in row] for row in confusion]
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    if count <= 20:
        axes.set_xticks(range(count), classes, rotation=90)
        axes.set_yticks(range(count), classes)
        for i, row in enumerate(confusion):
            for j, value in enumerate(row):
                colour = "white" if shares[i][j] > 0.5 else "black"
                axes.text(j, i, str(value), ha="center", va="center", color=colour, fontsize=8)
    axes.set_xlabel("answer")
    axes.set_ylabel("class")
    figure.suptitle(title)
    _save(figure, path)


def _save(figure: Any, path: Path) -> None:
    """To the side, then into place."""
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
