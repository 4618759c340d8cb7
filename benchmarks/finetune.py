"""Does fine-tuning help? Classes 5-9 of CIFAR-10 from 50 images each, with and without pretraining.

    python -m benchmarks.finetune --data DIR [--out DIR] [--seeds 0 1 2] [--tune] [--json]

For each seed: ResNet-20 learns classes 0-4 from all their images; then, on 250 images of classes
5-9, one network goes on from those weights with a new head and another starts from scratch, both
for the same number of steps on batches of the same size. Both are tested on the 5,000 test images
of classes 5-9, once, after the last step. Ends with status 1 when the mean gain is below 5 points.

Each seed has 250 images of its own. `--tune` is how SCRATCH and TUNED were chosen: every candidate
learns 250 further images and is measured on 1,500 others, all training images that no seed uses; no
test image of classes 5-9 is looked at. A run that was stopped goes on when started again.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from minires import data
from minires.train import Sets, TrainConfig, Trainer, Watch, split_sets

__all__ = ["compare", "main", "part_of", "pretrain", "tune"]

OLD, NEW = range(5), range(5, 10)
EACH, SEEDS = 50, 3  # images a class of a seed
HELD_OUT = 300  # images a class to choose by
LEAST_GAIN = 5.0  # points of test accuracy

# Augmented, with decay 5e-4 and a rate that rises and falls once, as the package does for CIFAR-10
PRETRAIN = {"dataset": "cifar10", "model": "resnet20", "epochs": 3}
SMALL = {"dataset": "cifar10", "model": "resnet20", "epochs": 30, "batch_size": 32}
SMALL |= {"val_fraction": 0.0}
CANDIDATES: dict[str, list[dict[str, Any]]] = {
    "scratch": [
        *({"lr": lr} for lr in (0.02, 0.05, 0.1, 0.2)),
        {"lr": 0.05, "cutout": 8},
        {"lr": 0.05, "weight_decay": 5e-3},
        {"lr": 0.05, "label_smoothing": 0.1},
    ],
    "tuned": [
        {"lr": 0.02},
        {"lr": 0.05},
        {"lr": 0.1},
        {"lr": 0.05, "freeze": "layer1"},
        {"lr": 0.05, "freeze": "layer2"},
        {"lr": 0.1, "lr_backbone": 0.1},
        {"lr": 0.1, "lr_backbone": 0.3},
        {"lr": 0.1, "lr_backbone": 0.3, "freeze": "layer1"},
        {"lr": 0.1, "lr_backbone": 0.3, "cutout": 8},
        {"lr": 0.1, "lr_backbone": 0.3, "weight_decay": 5e-3},
        {"lr": 0.1, "lr_backbone": 0.3, "label_smoothing": 0.1},
        {"lr": 0.1, "lr_backbone": 0.3, "freeze_bn": True},
    ],
}
SCRATCH: dict[str, Any] = {"lr": 0.05, "weight_decay": 5e-3}
TUNED: dict[str, Any] = {"lr": 0.1, "lr_backbone": 0.3, "weight_decay": 5e-3}


def part_of(full: data.Dataset, start: int, stop: int) -> data.Dataset:
    """The images number start … stop - 1 of each of the classes 5-9, in an order fixed for all."""
    chosen = data.only_classes(full, NEW)
    order = np.random.default_rng(0).permutation(len(chosen))
    labels = chosen.labels[order]
    of_class = [order[labels == k][start:stop] for k in range(len(chosen.classes))]
    return chosen[np.sort(np.concatenate(of_class))]


def run(config: TrainConfig, out: Path, sets: Sets) -> dict[str, Any]:
    """Train, or go on with what is in `out`; the summary."""
    watch = Watch(sys.stderr)
    if (out / "config.json").exists():
        return Trainer.resume(out, sets=sets, watch=watch).run()
    return Trainer(config, out, sets=sets, watch=watch).run()


def pretrain(full: data.Dataset, test: data.Dataset, out: Path, seed: int) -> Path:
    """Learn classes 0-4; the weights of the epoch that was best on a tenth of the images."""
    config = TrainConfig(**PRETRAIN, seed=seed).resolved()
    sets = split_sets(config, data.only_classes(full, OLD), data.only_classes(test, OLD))
    folder = out / f"pretrain-{seed}"
    run(config, folder, sets)
    return folder / "best.safetensors"


def small_run(
    options: dict[str, Any], seed: int, init: Path | None, out: Path, images: Any, test: Any
) -> float:
    """Learn `images`, from `init` if given; the accuracy on `test`, %."""
    tuned = {} if init is None else {"init": str(init), "reset_head": True}
    config = TrainConfig(**SMALL, **options, **tuned, seed=seed).resolved()
    summary = run(config, out, split_sets(config, images, test))
    return 100 * summary["test_accuracy"]


def compare(full: data.Dataset, test: data.Dataset, out: Path, seed: int) -> dict[str, Any]:
    """One seed: {"seed", "scratch", "tuned", "gain"}, test accuracies in %."""
    init = pretrain(full, test, out, seed)
    images = part_of(full, seed * EACH, (seed + 1) * EACH)
    unseen = data.only_classes(test, NEW)
    scratch = small_run(SCRATCH, seed, None, out / f"scratch-{seed}", images, unseen)
    tuned = small_run(TUNED, seed, init, out / f"tuned-{seed}", images, unseen)
    return {"seed": seed, "scratch": scratch, "tuned": tuned, "gain": tuned - scratch}


def tune(full: data.Dataset, test: data.Dataset, out: Path) -> list[dict[str, Any]]:
    """Measure every candidate once on training images of classes 5-9 that no seed learns."""
    first = SEEDS * EACH
    images = part_of(full, first, first + EACH)
    held_out = part_of(full, first + EACH, first + EACH + HELD_OUT)
    init = pretrain(full, test, out, 0)
    rows = []
    for kind, candidates in CANDIDATES.items():
        for number, options in enumerate(candidates):
            folder = out / f"candidate-{kind}-{number}"
            start = init if kind == "tuned" else None
            accuracy = small_run(options, 0, start, folder, images, held_out)
            rows.append({"kind": kind, **options, "validation": accuracy})
    return rows


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns its exit status."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.finetune", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--data", required=True, help="folder of CIFAR-10, or its parent")
    parser.add_argument("--out", type=Path, default=Path("runs/finetune"), help="where runs go")
    parser.add_argument("--seeds", type=int, nargs="+", default=range(SEEDS), choices=range(SEEDS))
    parser.add_argument("--tune", action="store_true", help="measure the candidates instead")
    parser.add_argument("--pretrain", action="store_true", help="only learn classes 0-4")
    parser.add_argument("--json", action="store_true", help="one JSON object instead of the table")
    given = parser.parse_args(arguments)
    full, test = (data.load_dataset("cifar10", given.data, split) for split in ("train", "test"))
    if given.pretrain:
        for seed in given.seeds:
            pretrain(full, test, given.out, seed)
        return 0
    if given.tune:
        rows = tune(full, test, given.out)
        print(json.dumps({"candidates": rows}) if given.json else "\n".join(map(str, rows)))
        return 0
    rows = [compare(full, test, given.out, seed) for seed in given.seeds]
    gain = statistics.mean(row["gain"] for row in rows)
    if given.json:
        print(json.dumps({"ok": gain >= LEAST_GAIN, "gain": gain, "rows": rows}))
    else:
        print("seed  scratch   tuned    gain   (% of 5,000 test images)")
        for row in rows:
            print(f"{row['seed']:4} {row['scratch']:8.2f} {row['tuned']:7.2f} {row['gain']:+7.2f}")
        print(f"mean gain {gain:+.2f} points, wanted at least {LEAST_GAIN:+.1f}")
    return 0 if gain >= LEAST_GAIN else 1


if __name__ == "__main__":
    sys.exit(main())
