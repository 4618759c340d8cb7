"""`minires gradcheck`: the gradients of our operations against numerical differences."""

from __future__ import annotations

import argparse
import json
from typing import Any

from .options import add_command

__all__ = ["add", "run"]


def add(commands: Any) -> None:
    """Add the command to `commands`."""
    text, examples = "check gradients numerically", ["", "conv2d batch_norm"]
    parser = add_command(commands, "gradcheck", run, text, examples)
    parser.add_argument("ops", nargs="*", metavar="OP", help="operations to check (default: all)")


def run(given: argparse.Namespace) -> int:
    """Check and print the table."""
    from ..checking import check_ops, format_table  # the sample calls take a moment to build

    reports = check_ops(given.ops or None)
    passed = all(reports)
    if given.json:
        rows = [{"op": r.name, "passed": r.passed, "max_error": r.max_error} for r in reports]
        print(json.dumps({"passed": passed, "ops": rows}))
    else:
        print(format_table(reports))
    return 0 if passed else 1
