"""`minires predict`: the likeliest classes of picture files."""

from __future__ import annotations

import argparse
import json
from typing import Any

from ..train import ConfigError, load_trained, predict
from .options import add_command, device_options, source_options

__all__ = ["add", "run"]

EXAMPLES = ["RUN cat.png dog.jpg", "FILE cat.png --top 3"]


def add(commands: Any) -> None:
    """Add the command to `commands`."""
    parser = add_command(commands, "predict", run, "say what is in pictures", EXAMPLES)
    parser.add_argument("source", metavar="RUN|FILE", help="run folder or weight file")
    parser.add_argument("images", nargs="+", metavar="IMAGE", help="picture files")
    source_options(parser)
    device_options(parser)
    parser.add_argument("--top", type=int, default=5, metavar="K", help="classes shown (5)")
    parser.add_argument("--size", type=int, metavar="PIXELS", help="side that pictures get")


def run(given: argparse.Namespace) -> int:
    """Predict and print."""
    names = ("dataset", "normalize", "model", "stem", "which", "device", "threads", "size")
    if given.top < 1:
        raise ConfigError(f"--top: must be at least 1, got {given.top}")
    loaded = load_trained(given.source, **{name: getattr(given, name) for name in names})
    found = predict(loaded, given.images, given.top)
    if given.json:
        print(json.dumps({"images": found}))
        return 0
    for picture in found:
        guesses = (f"{p['class']} {100 * p['probability']:.1f} %" for p in picture["predictions"])
        print(f"{picture['file']}: {', '.join(guesses)}")
    return 0
