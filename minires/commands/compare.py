"""`minires compare`: runs in a table, and their curves in one picture."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from ..train.compare import compare_runs
from ..train.plots import draw_comparison
from .options import add_command

__all__ = ["add", "run"]

SHARES = {
    "train_accuracy": "train",
    "val_accuracy": "val",
    "best_val_accuracy": "best",
    "test_accuracy": "test",
    "test_accuracy_views": "views",
}


def add(commands: Any) -> None:
    """Add the command to `commands`."""
    examples = ["runs/quick runs/quick --plot both.png", "RUN RUN --json"]
    text = "compare runs, finished or still going on"
    parser = add_command(commands, "compare", run, text, examples, needs_run=True)
    parser.add_argument("runs", nargs="+", metavar="RUN", help="run folders")
    parser.add_argument("--plot", metavar="F.png", help="draw their losses and accuracies")


def run(given: argparse.Namespace) -> int:
    """Read, draw and print."""
    found = compare_runs(given.runs)
    if given.plot is not None:
        draw_comparison(Path(given.plot), {row["run"]: row["records"] for row in found})
    if given.json:
        rows = [{k: v for k, v in row.items() if k != "records"} for row in found]
        print(json.dumps({"runs": rows}))
        return 0
    wide = max(len(row["run"]) for row in found)
    heads = "".join(f"{head:>8}" for head in SHARES.values())
    print(f"{'run':{wide}}  {'epochs':>9}{heads} {'img/s':>8} {'CPU s':>8}  options")
    for row in found:
        shares = "".join(_share(row[name]) for name in SHARES)
        speed = "" if row["img_per_s"] is None else f"{row['img_per_s']:.0f}"
        options = ", ".join(f"{name} {value}" for name, value in row["options"].items())
        epochs = f"{row['epochs']}/{row['of']}"
        cells = f"{row['run']:{wide}}  {epochs:>9}{shares} {speed:>8} {row['cpu_seconds']:>8.0f}"
        print(f"{cells}  {options}".rstrip())
    return 0


def _share(value: float | None) -> str:
    return f"{'-' if value is None else format(100 * value, '.2f'):>8}"
