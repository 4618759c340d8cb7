"""`minires evaluate`: accuracy and loss of a run or weight file on a data set."""

from __future__ import annotations

import argparse
import json
from typing import Any

from ..train import ConfigError, Watch, evaluate_source
from .options import add_command, device_options, source_options

__all__ = ["add", "run"]

EXAMPLES = ["RUN", "--weights FILE --model resnet20 --dataset cifar10 --data DIR --json"]


def add(commands: Any) -> None:
    """Add the command to `commands`."""
    text = "measure accuracy and loss of a run or weight file"
    parser = add_command(commands, "evaluate", run, text, EXAMPLES)
    parser.add_argument("source", nargs="?", metavar="RUN", help="run folder")
    parser.add_argument("--weights", metavar="FILE", help="safetensors, or PyTorch's formats")
    source_options(parser)
    device_options(parser)
    parser.add_argument("--data", metavar="DIR", help="folder of the data set, or its parent")
    parser.add_argument("--download", action="store_true", help="fetch the data when missing")
    parser.add_argument("--split", default="test", metavar="test|train", help="default: test")
    parser.add_argument("--limit", type=int, metavar="N", help="only the first N images")
    parser.add_argument("--quiet", action="store_true", help="no progress bar")


def run(given: argparse.Namespace) -> int:
    """Measure and print."""
    if (given.source is None) == (given.weights is None):
        raise ConfigError("evaluate: give either a run folder or --weights FILE")
    names = ("dataset", "data", "download", "split", "limit", "normalize", "model", "stem", "which")
    options = {name: getattr(given, name) for name in (*names, "device", "threads")}
    watch = Watch(quiet=given.quiet)
    with watch.bar("images", None, delay=0.1) as bar:  # nothing yet when it fails at once
        source = given.source or given.weights
        scores = evaluate_source(source, **options, after_batch=bar.update)
    if given.json:
        print(json.dumps(scores))
    else:
        right = f"{scores['correct']:,} of {scores['total']:,}"
        print(f"accuracy {scores['accuracy']:.4f} ({right}), loss {scores['loss']:.4f}")
    return 0
