"""Deeper plain networks train worse, residual ones do not: plain-20/56 against ResNet-20/56.

    python -m benchmarks.degradation --data DIR [--runs DIR] [--epochs 8] [--json]

All four networks learn CIFAR-10 by one recipe, and their training and validation errors are drawn
into one picture, benchmarks/results/degradation/curves.png. Ends with status 1 unless plain-56 ends
with a larger training error than plain-20 and ResNet-56 with a smaller one than ResNet-20. A run
that was stopped goes on when started again, one that has finished is left as it is.

Source: He et al., "Deep residual learning for image recognition", CVPR 2016, figure 6.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from minires.train import TrainConfig, Trainer, compare_runs
from minires.train.plots import draw_comparison

from .machine import describe
from .recipe import keep

__all__ = ["NETWORKS", "holds", "main", "train"]

NETWORKS = ("plain20", "plain56", "resnet20", "resnet56")
# plain SGD; twice the rate is too much for the deepest plain network
BASE = TrainConfig(
    dataset="cifar10",
    stem="cifar",
    epochs=8,
    batch_size=128,
    optimizer="sgd",
    lr=0.1,
    weight_decay=5e-4,
    schedule="onecycle",
    warmup=0.15,
    label_smoothing=0.0,
    augment=True,
    crop=4,
    alternate_flip=True,
    val_fraction=0.02,
)
RESULTS = Path(__file__).parent / "results" / "degradation"


def train(model: str, folder: Path, base: TrainConfig, **options: Any) -> None:
    """Begin the run of a network, or go on with it."""
    if (folder / "config.json").exists():
        Trainer.resume(folder, **options).run()
    else:
        Trainer(dataclasses.replace(base, model=model, **options), folder).run()


def holds(errors: dict[str, float]) -> bool:
    """Whether training errors by network show the degradation, and that shortcuts remove it."""
    plain = errors["plain56"] > errors["plain20"]
    return plain and errors["resnet56"] < errors["resnet20"]


def study(base: TrainConfig, runs: Path, results: Path, **options: Any) -> dict[str, Any]:
    """Train what is not trained yet, draw, keep the metrics; returns the errors in training."""
    for model in NETWORKS:
        train(model, runs / model, base, **options)
        keep(runs / model, results / model)
    found = compare_runs([runs / model for model in NETWORKS])
    by_name = dict(zip(NETWORKS, found, strict=True))
    records = {model: row["records"] for model, row in by_name.items()}
    draw_comparison(results / "curves.png", records)
    errors = {model: 1 - row["train_accuracy"] for model, row in by_name.items()}
    tested = {model: 1 - row["test_accuracy"] for model, row in by_name.items()}
    epochs = {"epochs": base.epochs, "holds": holds(errors)}
    result = {"train_error": errors, "test_error": tested, **epochs, **describe()}
    (results / "result.json").write_text(json.dumps(result, indent=2) + "\n")
    return result


def main(arguments: Sequence[str] | None = None) -> int:
    """Train, draw, print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.degradation", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--data", metavar="DIR", help="folder of the data set")
    parser.add_argument("--runs", type=Path, default=Path("runs/degradation"), metavar="DIR")
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--threads", type=int)
    parser.add_argument("--json", action="store_true", help="print one JSON object as last line")
    given = parser.parse_args(arguments)
    base = dataclasses.replace(BASE, epochs=given.epochs)
    result = study(base, given.runs, RESULTS, data=given.data, threads=given.threads)
    if given.json:
        print(json.dumps(result))
        return int(not result["holds"])
    for model in NETWORKS:
        errors = result["train_error"][model], result["test_error"][model]
        print("{:9} training error {:.2%}, test error {:.2%}".format(model, *errors))
    return int(not result["holds"])


if __name__ == "__main__":
    sys.exit(main())
