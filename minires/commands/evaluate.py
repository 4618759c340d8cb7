"""`minires evaluate`: accuracy and loss of a run or weight file on a data set."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from ..train import ConfigError, Watch, draw_confusion, evaluate_source, format_report
from .options import add_command, data_options, device_options, source_options, warn_skipped

__all__ = ["add", "run"]

EXAMPLES = [
    "runs/quick --report --confusion confusion.png",
    "--weights FILE --model resnet20 --dataset cifar10 --data DIR --json",
]


def add(commands: Any) -> None:
    """Add the command to `commands`."""
    text = "measure accuracy and loss of a run or weight file"
    parser = add_command(commands, "evaluate", run, text, EXAMPLES, needs_run=True)
    parser.add_argument("source", nargs="?", metavar="RUN", help="run folder")
    parser.add_argument("--weights", metavar="FILE", help="safetensors, or PyTorch's formats")
    source_options(parser)
    data_options(parser)
    device_options(parser)
    text = "none|flip|shifts"
    parser.add_argument("--views", default="none", metavar=text, help="mean answer to such views")
    text = "also precision and recall of each class, and the confusion matrix"
    parser.add_argument("--report", action="store_true", help=text)
    parser.add_argument("--confusion", metavar="F.png", help="draw the confusion matrix")
    parser.add_argument("--quiet", action="store_true", help="no progress bar")


def run(given: argparse.Namespace) -> int:
    """Measure and print."""
    if (given.source is None) == (given.weights is None):
        raise ConfigError("evaluate: give either a run folder or --weights FILE")
    names = ("dataset", "data", "download", "split", "limit", "normalize", "model", "stem", "which")
    options = {name: getattr(given, name) for name in (*names, "device", "threads")}
    options["views"] = given.views
    options["report"] = given.report or given.confusion is not None
    watch = Watch(quiet=given.quiet)
    with watch.bar("images", None, delay=0.1) as bar:  # nothing yet when it fails at once
        source = given.source or given.weights
        scores = evaluate_source(source, **options, after_batch=bar.update)
    if given.confusion is not None:
        names = [row["class"] for row in scores["classes"]]
        draw_confusion(Path(given.confusion), scores["confusion"], names, str(source))
    warn_skipped(scores.get("skipped", {}))
    if given.json:
        print(json.dumps(scores))
        return 0
    right = f"{scores['correct']:,} of {scores['total']:,}"
    print(f"accuracy {scores['accuracy']:.4f} ({right}), loss {scores['loss']:.4f}")
    if given.report:
        print("\n" + format_report(scores))
    return 0
