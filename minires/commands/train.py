"""`minires train`: every field of `TrainConfig` is an option, and its help."""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from typing import Any

from ..train import ConfigError, Interrupted, TrainConfig, Trainer, Watch, load_recipe
from ..train import config as settings
from .options import add_command

__all__ = ["add", "run"]

EXAMPLES = [
    "",
    "--dataset cifar10 --data DIR --model resnet18 --epochs 10",
    "--recipe resnet20-fast --data DIR",
    "--dataset folder --data DIR --model resnet18 --cache-gb 20",
    "--dataset folder --data DIR --init FILE --reset-head",
    "--resume RUN",
    "--limit 200 --epochs 1 --out runs/quick",
    "--init runs/quick/best.safetensors --reset-head --freeze layer1 --limit 200 --epochs 1",
]
# the first option of each section of the help; the others follow in the order of the fields
SECTIONS = {
    "dataset": "data",
    "model": "network",
    "init": "going on from weights that are there",
    "epochs": "learning",
    "augment": "augmentation",
    "val_fraction": "validation, and how much",
    "seed": "where and how to compute",
    "image_size": "folders of pictures",
}


def add(commands: Any) -> None:
    """Add the command to `commands`."""
    parser = add_command(commands, "train", run, "train a network", EXAMPLES)
    parser.usage = "minires train [OPTION ...]"
    group: Any = parser
    for field in dataclasses.fields(TrainConfig):
        if field.name in SECTIONS:
            group = parser.add_argument_group(SECTIONS[field.name])
        _add_field(group, field)
    parser.add_argument("--out", metavar="DIR", help="run folder (runs/<model>-<time>)")
    parser.add_argument("--resume", metavar="DIR", help="go on with the run in this folder")
    parser.add_argument(
        "--recipe", metavar="NAME", help="take the options of a recipe; minires recipes lists them"
    )
    parser.add_argument("--config", metavar="FILE", help="take the options of a config.json")
    parser.add_argument(
        "--stop-after-epoch", type=int, metavar="N", help="stop early, to resume later"
    )
    parser.add_argument("--quiet", action="store_true", help="no progress bar, no lines an epoch")


def run(given: argparse.Namespace) -> int:
    """Train, and print where the run is and how well it does."""
    names = {field.name for field in dataclasses.fields(TrainConfig)}
    options = {name: value for name, value in vars(given).items() if name in names}
    watch = Watch(sys.stderr if given.json else sys.stdout, quiet=given.quiet)
    if given.resume is not None:
        if (given.out, given.config, given.recipe) != (None, None, None):
            fixed = "--out, --config and --recipe"
            raise ConfigError(f"--resume: goes on with its own options; leave out {fixed}")
        trainer = Trainer.resume(given.resume, watch=watch, **options)
    else:
        config = dataclasses.replace(_base(given), **options)
        trainer = Trainer(config, given.out, watch=watch)
    try:
        summary = trainer.run(given.stop_after_epoch)
    except Interrupted:
        if given.json:
            print(json.dumps(trainer.summary()), flush=True)
        raise
    if given.json:
        print(json.dumps(summary))
    elif summary["finished"]:
        images = f"{len(trainer.sets.test):,} test images"
        print(
            f"test accuracy {summary['test_accuracy']:.4f} on {images}; run folder {summary['out']}"
        )
    else:
        print(f"stopped; go on with minires train --resume {summary['out']}")
    return 0


def _base(given: argparse.Namespace) -> TrainConfig:
    """The options that those of the command line change."""
    if given.recipe is not None and given.config is not None:
        raise ConfigError("--recipe, --config: give one of them")
    if given.recipe is not None:
        return load_recipe(given.recipe).config
    return TrainConfig() if given.config is None else TrainConfig.load(given.config)


def _add_field(parser: Any, field: dataclasses.Field[Any]) -> None:
    rules, kind = field.metadata, settings.kind(field)
    text = f"{rules['help']} ({_default_of(field)})".replace("%", "%%").replace(" ()", "")
    options: dict[str, Any] = {"help": text, "default": argparse.SUPPRESS}
    if kind is bool:
        options["action"] = argparse.BooleanOptionalAction
    else:
        letter = {int: "N", float: "F"}.get(kind, "TEXT")
        metavar = "|".join(rules["choices"]) if "choices" in rules else rules.get("of", letter)
        options |= {"type": kind, "metavar": metavar}
    parser.add_argument(settings.flag(field.name), **options)


def _default_of(field: dataclasses.Field[Any]) -> str:
    rows = {name: row.get(field.name) for name, row in settings.DEFAULTS.items()}
    if None not in rows.values():
        same = len(set(rows.values())) == 1
        return str(rows["shapes"]) if same else ", ".join(f"{k} {v}" for k, v in rows.items())
    return "" if field.default is None else str(field.default)
