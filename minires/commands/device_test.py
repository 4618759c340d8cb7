"""`minires device-test`: is everything right on the GPU of this machine, and how fast is it?"""

from __future__ import annotations

import argparse
import json
import sys
from typing import Any

from ..train import ConfigError
from .options import add_command

__all__ = ["add", "run"]


def add(commands: Any) -> None:
    """Add the command to `commands`."""
    text = "check and measure the GPU of this machine"
    examples = ["", "--no-tests --batch 32", "--no-tests --tiny --batch 2"]
    parser = add_command(commands, "device-test", run, text, examples)
    parser.add_argument("--batch", type=int, default=64, metavar="N", help="images (default: 64)")
    parser.add_argument("--no-tests", action="store_true", help="without a checkout's own tests")
    parser.add_argument("--tiny", action="store_true", help="only show that everything runs")


def run(given: argparse.Namespace) -> int:
    """Check, measure and print."""
    from ..gpu import device_test, lines  # the sample calls take a moment to build

    if given.batch < 1:
        raise ConfigError(f"--batch: is {given.batch} but must be at least 1")
    found = device_test(
        given.batch,
        tests=not given.no_tests,
        tiny=given.tiny,
        tell=lambda text: print(f"minires: {text} …", file=sys.stderr),
    )
    if given.json:
        print(json.dumps(found))
    else:
        for line in lines(found):
            print(line)
    return 0 if found["passed"] else 1
