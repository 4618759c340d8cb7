"""`minires predict`: the likeliest classes of pictures."""

from __future__ import annotations

import argparse
import csv
import json
import sys
from typing import Any

from ..train import ConfigError, load_trained, predict
from .options import add_command, device_options, loading_options, source_options, warn_skipped

__all__ = ["add", "run"]

EXAMPLES = [
    "runs/quick runs/quick/curves.png",
    "runs/quick/best.safetensors runs/quick --top-k 2 --csv",
]


def add(commands: Any) -> None:
    """Add the command to `commands`."""
    parser = add_command(
        commands, "predict", run, "say what is in pictures", EXAMPLES, needs_run=True
    )
    parser.add_argument("source", metavar="RUN|FILE", help="run folder or weight file")
    text = "picture files, or folders of them; what is damaged in a folder is skipped"
    parser.add_argument("images", nargs="+", metavar="IMAGE|DIR", help=text)
    source_options(parser)
    device_options(parser)
    parser.add_argument(
        *("--top-k", "--top"),
        dest="top",
        type=int,
        default=5,
        metavar="K",
        help="classes shown (5)",
    )
    parser.add_argument("--size", type=int, metavar="PIXELS", help="side that pictures get")
    text = "names of the classes, a line each, where the weights do not say them"
    parser.add_argument("--class-names", metavar="FILE", help=text)
    text = "print lines of file,rank,class,probability instead"
    parser.add_argument("--csv", action="store_true", help=text)


def run(given: argparse.Namespace) -> int:
    """Predict and print."""
    if given.top < 1:
        raise ConfigError(f"--top-k: must be at least 1, got {given.top}")
    if given.csv and given.json:
        raise ConfigError("predict: give --csv or --json, not both")
    loaded = load_trained(given.source, **loading_options(given))
    skipped: dict[str, str] = {}
    found = predict(loaded, given.images, given.top, skipped)
    warn_skipped(skipped)
    if given.json:
        print(json.dumps({"images": found, "skipped": skipped}))
    elif given.csv:
        _print_csv(found)
    else:
        for picture in found:
            guesses = (
                f"{p['class']} {100 * p['probability']:.1f} %" for p in picture["predictions"]
            )
            print(f"{picture['file']}: {', '.join(guesses)}")
    return 0


def _print_csv(found: list[dict[str, Any]]) -> None:
    writer = csv.writer(sys.stdout, lineterminator="\n")
    writer.writerow(["file", "rank", "class", "probability"])
    for picture in found:
        for rank, p in enumerate(picture["predictions"], 1):
            writer.writerow([picture["file"], rank, p["class"], p["probability"]])
