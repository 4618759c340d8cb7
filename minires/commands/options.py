"""What the commands share: the parser and its one-line errors, and options of several commands."""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

from ..train import config as settings
from ..train.config import unknown

__all__ = [
    "ENVIRONMENT",
    "QUICK_RUN",
    "Parser",
    "add_command",
    "data_options",
    "device_options",
    "loading_options",
    "source_options",
    "warn_skipped",
]

ENVIRONMENT = """environment variables:
  MINIRES_DATA             folder of the data sets, where --data is not given (else ./data)
  XDG_CACHE_HOME           folder with minires/pictures, shrunken copies (else ~/.cache)
  MINIRES_TRACEBACK=1      show where an error arose, not only its line
  NUMBA_THREADING_LAYER    omp, tbb or workqueue (default: the first that there is)
  OMP_WAIT_POLICY=active   keep idle threads spinning; they sleep after 1 ms by default
  OPENBLAS_NUM_THREADS=N   threads of the matrix products
"""
QUICK_RUN = "train --limit 200 --epochs 1 --out runs/quick"


class Parser(argparse.ArgumentParser):
    """An ArgumentParser whose errors are one line, with the closest option or command."""

    def __init__(self, **options: Any) -> None:
        wide = argparse.RawDescriptionHelpFormatter
        super().__init__(**{"formatter_class": wide, "allow_abbrev": False, **options})

    def error(self, message: str) -> NoReturn:
        """Print one line and exit with 2."""
        wrong = re.search(r"invalid choice: '(.*?)' \(choose from (.*)\)", message)
        if wrong:
            message = str(unknown("COMMAND", wrong[1], re.findall(r"\w+", wrong[2])))
        self.exit(2, f"{self.prog}: error: {message}; see {self.prog} --help\n")


def add_command(
    commands: Any,
    name: str,
    run: Callable[[Any], int],
    text: str,
    examples: Sequence[str],
    needs_run: bool = False,
) -> Parser:
    """A new command among `commands` (what `add_subparsers` returns), with --json.

    `examples` are what follows `minires NAME`, and are shown at the end of its help, with
    `needs_run` behind the line that makes the run folder runs/quick. A test runs those without
    words in capitals (RUN, FILE, DIR) as they are printed.
    """
    lines = [f"  minires {name} {example}".rstrip() for example in examples]
    if needs_run:
        lines.insert(0, f"  minires {QUICK_RUN}")
    epilog = "\n".join(["examples:", *lines, "", ENVIRONMENT])
    added: Parser = commands.add_parser(name, help=text, description=text, epilog=epilog)
    added.set_defaults(run=run, parser=added)
    added.add_argument("--json", action="store_true", help="print one JSON object as last line")
    return added


def source_options(parser: Parser) -> None:
    """What to know about a run or weight file, where it does not say so itself."""
    parser.add_argument("--model", metavar="NAME", help="network, if the file does not say")
    parser.add_argument("--stem", metavar="|".join(settings.STEMS), help="first layers, likewise")
    parser.add_argument("--dataset", metavar="|".join(settings.DATASETS), help="data set, likewise")
    parser.add_argument("--normalize", metavar="|".join(settings.NORMALIZE), help="likewise")
    parser.add_argument("--which", default="last", metavar="last|best", help="weights of a run")


def loading_options(given: argparse.Namespace) -> dict[str, Any]:
    """What `load_trained` is to be told of these options."""
    names = ("model", "stem", "dataset", "normalize", "which", "device", "threads")
    options = {name: getattr(given, name) for name in names}
    file = getattr(given, "class_names", None)
    lines = None if file is None else Path(file).read_text(encoding="utf-8").splitlines()
    return {**options, "size": getattr(given, "size", None), "classes": lines}


def data_options(parser: Parser) -> None:
    """Which images of which data set."""
    parser.add_argument("--data", metavar="DIR", help="folder of the data set, or its parent")
    parser.add_argument("--download", action="store_true", help="fetch the data when missing")
    parser.add_argument("--split", default="test", metavar="test|train|val", help="default: test")
    parser.add_argument("--limit", type=int, metavar="N", help="only the first N images")


def device_options(parser: Parser) -> None:
    """Where to compute, and with how many threads."""
    devices = "|".join(settings.DEVICES)
    parser.add_argument("--device", default="auto", metavar=devices, help="default: auto")
    parser.add_argument("--threads", type=int, metavar="N", help="CPU threads (all by default)")


def warn_skipped(skipped: Mapping[str, str]) -> None:
    """Name the pictures that were left out, a line each on stderr."""
    for reason in skipped.values():
        print(f"minires: skipped {reason}", file=sys.stderr)
