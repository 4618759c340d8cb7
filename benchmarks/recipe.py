"""Train one seed of a recipe, and record it with the recipe and in benchmarks/results.

    python -m benchmarks.recipe NAME --data DIR --run DIR [--seed 0] [--threads N]

A run that was stopped goes on when started again with the same --run; one that has finished is only
recorded: its options, metrics, timing and curves go to benchmarks/results/NAME-seedN, and a line of
accuracies and CPU time to minires/recipes/measured.jsonl, from which `minires recipes` computes.

How fast the machine is itself goes to pace.jsonl: a fixed product, timed now and then in training.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import shutil
import statistics
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from minires.train import ConfigError, TrainConfig, Trainer, load_recipe
from minires.train import recipes as store
from minires.train.metrics import append_line, read_lines, replace_text
from minires.train.setup import MOVABLE
from minires.train.watch import Watch

from .machine import describe
from .peak import fixed_product

__all__ = ["Metronome", "keep", "main", "record", "train"]

RESULTS = Path(__file__).parent / "results"
PACE = "pace.jsonl"
FILES = ("config.json", "metrics.jsonl", "timing.jsonl", "curves.png")
PRODUCT_EVERY = 10  # steps of training


class Metronome(Watch):
    """Times a fixed product between steps of training: what slows the machine down slows it too.

    A line an epoch in `path`: how often, and the median and the sum of the CPU seconds, which
    `train_cpu_seconds` of timing.jsonl contains.
    """

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.path = path

    @contextmanager
    def bar(
        self, title: str, total: int | None, done: int = 0, *, delay: float = 0.0
    ) -> Iterator[Any]:
        """The bar; over an epoch of training, one that times the product."""
        with super().bar(title, total, done, delay=delay) as bar:
            if not title.startswith("epoch"):
                yield bar
                return
            beats: list[tuple[float, float]] = []
            update, steps = bar.update, 0

            def update_and_time(count: int) -> None:
                nonlocal steps
                update(count)
                steps += 1
                if steps % PRODUCT_EVERY == 0:
                    beats.append((fixed_product(), fixed_product()))

            bar.update = update_and_time
            yield bar
        seconds = [second for _, second in beats]  # of the first the operands come from memory
        line = {
            "epoch": int(title.removeprefix("epoch ").split("/")[0]),
            "products": len(beats),
            "seconds": round(statistics.median(seconds), 6) if beats else None,
            "all_seconds": round(sum(map(sum, beats)), 6),
        }
        append_line(self.path, line)


def train(name: str, run: Path, **options: Any) -> dict[str, Any]:
    """Begin the run, or go on with it, and return its summary."""
    watch = Metronome(run / PACE)
    if (run / "config.json").exists():
        return Trainer.resume(run, watch=watch, **options).run()
    config = dataclasses.replace(load_recipe(name).config, **options)
    return Trainer(config, run, watch=watch).run()


def record(name: str, run: Path, results: Path = RESULTS) -> dict[str, Any]:
    """Keep what a finished run measured; returns its line of measured.jsonl.

    Raises ConfigError when the run's options are not the recipe's, or it has not finished.
    """
    config = TrainConfig.load(run / "config.json").resolved()
    recipe = load_recipe(name).config
    free = {"seed": config.seed, **{option: getattr(config, option) for option in MOVABLE}}
    expected = dataclasses.replace(recipe, **free).resolved().to_dict()
    odd = [option for option, value in config.to_dict().items() if value != expected[option]]
    if odd:
        raise ConfigError(f"{run}: not a run of {name}: {', '.join(odd)} differ")
    last = read_lines(run / "metrics.jsonl")[-1]
    if last["test_accuracy"] is None:
        raise ConfigError(f"{run}: has not finished: {last['epoch']} of {config.epochs} epochs")
    seconds = sum(line["cpu_seconds"] for line in read_lines(run / "timing.jsonl"))
    machine = describe()
    line = {
        "recipe": name,
        "seed": config.seed,
        "test_accuracy": last["test_accuracy"],
        "test_accuracy_views": last.get("test_accuracy_views"),
        "cpu_seconds": round(seconds, 1),
        **{key: machine[key] for key in ("cpu", "isa", "cores", "minires_version", "date")},
    }
    keep(run, results / f"{name}-seed{config.seed}")
    lines = [json.loads(text) for text in store.MEASURED.read_text().splitlines()]
    lines = [one for one in lines if (one["recipe"], one["seed"]) != (name, config.seed)] + [line]
    lines.sort(key=lambda one: (one["recipe"], one["seed"]))
    replace_text(store.MEASURED, "".join(json.dumps(one) + "\n" for one in lines))
    return line


def keep(run: Path, folder: Path) -> None:
    """Copy what a run measured, but where its data lies on this machine."""
    folder.mkdir(parents=True, exist_ok=True)
    for file in (*FILES, PACE) if (run / PACE).exists() else FILES:
        shutil.copyfile(run / file, folder / file)
    text = json.loads((run / "config.json").read_text())
    text["config"]["data"] = None
    replace_text(folder / "config.json", json.dumps(text, indent=2) + "\n")


def main(arguments: Sequence[str] | None = None) -> int:
    """Train, record, print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.recipe", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("name", metavar="NAME", help="of the recipe")
    parser.add_argument("--data", metavar="DIR", help="folder of the data set")
    parser.add_argument("--run", required=True, type=Path, metavar="DIR", help="run folder")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int)
    given = parser.parse_args(arguments)
    train(given.name, given.run, data=given.data, seed=given.seed, threads=given.threads)
    print(json.dumps(record(given.name, given.run)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
