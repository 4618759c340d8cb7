"""Named recipes: a file of options each, and what was measured with them.

`minires/recipes/NAME.toml` holds a line about the recipe and its options, fields of `TrainConfig`;
`measured.jsonl` beside them has a line a finished run, from which the accuracies that are shown are
computed.
"""

from __future__ import annotations

import json
import statistics
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .config import ConfigError, TrainConfig, unknown

__all__ = ["FOLDER", "MEASURED", "Recipe", "load_recipe", "recipe_names"]

FOLDER = Path(__file__).parents[1] / "recipes"
MEASURED = FOLDER / "measured.jsonl"


@dataclass(frozen=True)
class Recipe:
    """A name, a line of text, the options, and a dict for each run that was measured: seed,
    test_accuracy, test_accuracy_views (None without test-time views), cpu_seconds, cpu, isa, cores,
    date.
    """

    name: str
    about: str
    config: TrainConfig
    runs: list[dict[str, Any]]

    def summary(self) -> dict[str, Any]:
        """What `minires recipes` shows: mean and deviation (None for one run) over the runs, and
        how long one takes: CPU time divided by the machine's cores.

        >>> found = load_recipe("he2015-resnet20").summary()
        >>> found["model"], found["epochs"]
        ('resnet20', 182)
        """
        config, runs = self.config, self.runs
        minutes = [run["cpu_seconds"] / run["cores"] / 60 for run in runs]
        return {
            "recipe": self.name,
            "model": config.model,
            "epochs": config.epochs,
            "seeds": sorted(run["seed"] for run in runs),
            "test_accuracy": _spread([run["test_accuracy"] for run in runs]),
            "test_accuracy_views": _spread([run["test_accuracy_views"] for run in runs]),
            "minutes": round(statistics.mean(minutes), 1) if runs else None,
            "machines": sorted(
                {f"{run['cpu']} ({run['isa']}), {run['cores']} cores" for run in runs}
            ),
            "about": self.about,
        }


def _spread(values: list[float | None]) -> dict[str, float | None] | None:
    """Mean and standard deviation of the sample; None where something was not measured."""
    known = [value for value in values if value is not None]
    if not known or len(known) < len(values):
        return None
    deviation = statistics.stdev(known) if len(known) > 1 else None
    return {"mean": statistics.mean(known), "deviation": deviation}


def recipe_names() -> list[str]:
    """The recipes that there are.

    >>> "resnet20-fast" in recipe_names()
    True
    """
    return sorted(path.stem for path in FOLDER.glob("*.toml"))


def load_recipe(name: str) -> Recipe:
    """The recipe `name`. Raises ConfigError, with the closest name, when there is none.

    >>> load_recipe("resnet20-fast").config.model
    'resnet20'
    """
    if name not in recipe_names():
        raise unknown("--recipe", name, recipe_names())
    path = FOLDER / f"{name}.toml"
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path}: not a TOML file: {error}") from None
    lines = MEASURED.read_text(encoding="utf-8").splitlines()
    runs = [run for run in map(json.loads, lines) if run["recipe"] == name]
    config = TrainConfig.from_dict(values["options"], source=str(path))
    return Recipe(name, values["about"], config, runs)
