"""The `minires` command line: finds the command, runs it, and turns errors into one line.

Exit codes: 0 done, 1 failed (one line on stderr says why), 2 asked for what cannot be, 130
interrupted and saved. The commands themselves are in `commands`, one module each.
"""

from __future__ import annotations

import argparse
import contextlib
import difflib
import os
import sys
import traceback
from collections.abc import Sequence

from .backend import gpu_remedy
from .commands import COMMANDS
from .commands.options import ENVIRONMENT, Parser
from .train import ConfigError
from .version import __version__

__all__ = ["main"]

EXPECTED = (ValueError, TypeError, OSError, RuntimeError, ArithmeticError, ImportError, MemoryError)


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command line (without the program's name) and return its exit code.

    >>> main(["info", "--model", "nothing"])
    2
    """
    parser, arguments = _parser(), list(sys.argv[1:] if argv is None else argv)
    try:
        given, rest = parser.parse_known_args(arguments)
        if rest:
            given.parser.error(_unrecognized(rest[0], given.parser))
        return given.run(given)
    except SystemExit as stop:  # --help, --version, a wrong option
        return stop.code if isinstance(stop.code, int) else 1
    except KeyboardInterrupt as stop:
        return _fail(str(stop) or "interrupted", 130)
    except BrokenPipeError:  # the reader has gone: `minires info | head -1`
        with contextlib.suppress(OSError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except EXPECTED as error:
        text = (str(error) or type(error).__name__) + gpu_remedy(error)
        return _fail(f"error: {text}", 2 if isinstance(error, ConfigError) else 1)


def _fail(text: str, code: int) -> int:
    if os.environ.get("MINIRES_TRACEBACK", "0") not in ("", "0"):
        traceback.print_exc()
    print("minires: " + " ".join(text.split()), file=sys.stderr)
    return code


def _unrecognized(word: str, parser: argparse.ArgumentParser) -> str:
    options = [name for action in parser._actions for name in action.option_strings]
    close = difflib.get_close_matches(word.partition("=")[0], options, n=1)
    hint = f", did you mean {close[0]}?" if close else ""
    return f"unrecognized argument {word}{hint}"


def _parser() -> Parser:
    text = "Train small ResNets on an ordinary computer, and use them."
    examples = "examples:\n  minires train\n  minires evaluate runs/resnet20-20270101-120000"
    parser = Parser(prog="minires", description=text, epilog=f"{examples}\n\n{ENVIRONMENT}")
    parser.add_argument("--version", action="version", version=f"minires {__version__}")
    commands = parser.add_subparsers(metavar="COMMAND", required=True, parser_class=Parser)
    for command in COMMANDS:
        command.add(commands)
    return parser
