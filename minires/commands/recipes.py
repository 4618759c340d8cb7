"""`minires recipes`: the recipes of `minires train --recipe`, and what was measured with them."""

from __future__ import annotations

import argparse
import json
from typing import Any

from ..train.recipes import load_recipe, recipe_names
from .options import add_command

__all__ = ["add", "run"]

COLUMNS = "{:17} {:16} {:>6}  {:16} {:16} {:>7}  {}"


def add(commands: Any) -> None:
    """Add the command to `commands`."""
    text = "list the recipes and what was measured with them"
    add_command(commands, "recipes", run, text, ["", "--json"])


def run(given: argparse.Namespace) -> int:
    """Read and list."""
    found = [load_recipe(name).summary() for name in recipe_names()]
    if given.json:
        print(json.dumps({"recipes": found}))
        return 0
    heads = ("recipe", "network", "epochs", "test accuracy", "with views", "minutes", "machine")
    print(COLUMNS.format(*heads))
    for row in found:
        print(COLUMNS.format(*_cells(row)).rstrip())
    print("\n".join(f"{row['recipe']}: {row['about']}" for row in found))
    return 0


def _cells(row: dict[str, Any]) -> tuple[Any, ...]:
    accuracies = [_percent(row[name], row) for name in ("test_accuracy", "test_accuracy_views")]
    minutes = "" if row["minutes"] is None else f"{row['minutes']:.1f}"
    machine = "; ".join(row["machines"])
    return (row["recipe"], row["model"], row["epochs"], *accuracies, minutes, machine)


def _percent(spread: dict[str, Any] | None, row: dict[str, Any]) -> str:
    if spread is None:
        return "-" if row["seeds"] else "not measured"
    deviation = "" if spread["deviation"] is None else f" ± {100 * spread['deviation']:.2f}"
    return f"{100 * spread['mean']:.2f}{deviation} ({len(row['seeds'])})"
