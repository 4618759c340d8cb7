"""The `minires` command: parses, calls, prints.

Exit codes: 0 done, 1 failed (one line on stderr says why), 2 asked for what cannot be, 130
interrupted and saved.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import difflib
import json
import os
import re
import sys
import traceback
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

from .train import (
    ConfigError,
    Interrupted,
    TrainConfig,
    Trainer,
    Watch,
    describe_model,
    describe_system,
    evaluate_source,
    load_trained,
    predict,
)
from .train import config as settings
from .train.config import unknown
from .version import __version__

__all__ = ["main"]

ENVIRONMENT = """environment variables:
  MINIRES_DATA             folder of the data sets, where --data is not given (else ./data)
  MINIRES_TRACEBACK=1      show where an error arose, not only its line
  NUMBA_NUM_THREADS=N      most threads that --threads can ask for
  OMP_WAIT_POLICY=active   keep idle threads spinning; they sleep after 0.1 ms by default
  OPENBLAS_NUM_THREADS=N   threads of the matrix products
"""
EXPECTED = (ValueError, TypeError, OSError, RuntimeError, ArithmeticError, ImportError, MemoryError)


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
        text = str(error) or type(error).__name__
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


# The commands


def _train(given: argparse.Namespace) -> int:
    names = {field.name for field in dataclasses.fields(TrainConfig)}
    options = {name: value for name, value in vars(given).items() if name in names}
    watch = Watch(sys.stderr if given.json else sys.stdout, quiet=given.quiet)
    if given.resume is not None:
        if given.out is not None or given.config is not None:
            raise ConfigError("--resume: goes on in its own folder; leave out --out and --config")
        trainer = Trainer.resume(given.resume, watch=watch, **options)
    else:
        config = TrainConfig() if given.config is None else TrainConfig.load(given.config)
        trainer = Trainer(dataclasses.replace(config, **options), given.out, watch=watch)
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


def _evaluate(given: argparse.Namespace) -> int:
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


def _predict(given: argparse.Namespace) -> int:
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


def _gradcheck(given: argparse.Namespace) -> int:
    from .checking import check_ops, format_table  # the sample calls take a moment to build

    reports = check_ops(given.ops or None)
    passed = all(reports)
    if given.json:
        rows = [{"op": r.name, "passed": r.passed, "max_error": r.max_error} for r in reports]
        print(json.dumps({"passed": passed, "ops": rows}))
    else:
        print(format_table(reports))
    return 0 if passed else 1


def _info(given: argparse.Namespace) -> int:
    if given.models:
        from . import models

        found: dict[str, Any] = {"models": models.names()}
    elif given.model is not None:
        found = describe_model(given.model, given.classes, given.stem)
    else:
        found = describe_system()
    if given.json:
        print(json.dumps(found))
    elif given.model is not None:
        _print_layers(found)
    else:
        for key, value in found.items():
            print(f"{key:13}", " ".join(map(str, value)) if isinstance(value, list) else value)
    return 0


def _print_layers(found: dict[str, Any]) -> None:
    for layer in found["layers"]:
        shapes = ", ".join(f"{n} {'x'.join(map(str, s))}" for n, s in layer["shapes"].items())
        print(
            f"{layer['name']:28} {layer['type']:14} {layer['parameters']:>11,}  {shapes}".rstrip()
        )
    print(f"{found['model']}, {found['classes']} classes: {found['parameters']:,} parameters")


# The options


def _parser() -> Parser:
    text = "Train small ResNets on an ordinary computer, and use them."
    examples = "examples:\n  minires train\n  minires evaluate runs/resnet20-20270101-120000"
    parser = Parser(prog="minires", description=text, epilog=f"{examples}\n\n{ENVIRONMENT}")
    parser.add_argument("--version", action="version", version=f"minires {__version__}")
    commands = parser.add_subparsers(metavar="COMMAND", required=True, parser_class=Parser)

    def command(run: Callable[[Any], int], text: str, examples: Sequence[str]) -> Parser:
        name = run.__name__.strip("_")
        lines = "\n".join(f"  minires {name} {example}".rstrip() for example in examples)
        epilog = f"examples:\n{lines}\n\n{ENVIRONMENT}"
        added: Parser = commands.add_parser(name, help=text, description=text, epilog=epilog)
        added.set_defaults(run=run, parser=added)
        added.add_argument("--json", action="store_true", help="print one JSON object as last line")
        return added

    _train_options(
        command(
            _train,
            "train a network",
            ["", "--dataset cifar10 --data DIR --model resnet18 --epochs 10", "--resume RUN"],
        )
    )
    _evaluate_options(
        command(
            _evaluate,
            "measure accuracy and loss of a run or weight file",
            ["RUN", "--weights FILE --model resnet20 --dataset cifar10 --data DIR --json"],
        )
    )
    _predict_options(
        command(
            _predict, "say what is in pictures", ["RUN cat.png dog.jpg", "FILE cat.png --top 3"]
        )
    )
    added = command(_gradcheck, "check gradients numerically", ["", "conv2d batch_norm"])
    added.add_argument("ops", nargs="*", metavar="OP", help="operations to check (default: all)")
    added = command(_info, "show versions and machine, or a network", ["", "--model resnet18"])
    added.add_argument("--model", metavar="NAME", help="list the layers of a network")
    added.add_argument("--models", action="store_true", help="list the networks there are")
    added.add_argument("--classes", type=int, default=10, metavar="N", help="default: 10")
    added.add_argument("--stem", metavar="|".join(settings.STEMS), help="first layers")
    return parser


def _train_options(parser: Parser) -> None:
    for field in dataclasses.fields(TrainConfig):
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
    parser.add_argument("--out", metavar="DIR", help="run folder (runs/<model>-<time>)")
    parser.add_argument("--resume", metavar="DIR", help="go on with the run in this folder")
    parser.add_argument("--config", metavar="FILE", help="take the options of a config.json")
    parser.add_argument(
        "--stop-after-epoch", type=int, metavar="N", help="stop early, to resume later"
    )
    parser.add_argument("--quiet", action="store_true", help="no progress bar, no lines an epoch")


def _default_of(field: dataclasses.Field[Any]) -> str:
    rows = {name: row.get(field.name) for name, row in settings.RECIPES.items()}
    if None not in rows.values():
        same = len(set(rows.values())) == 1
        return str(rows["shapes"]) if same else ", ".join(f"{k} {v}" for k, v in rows.items())
    return "" if field.default is None else str(field.default)


def _source_options(parser: Parser) -> None:
    parser.add_argument("--model", metavar="NAME", help="network, if the file does not say")
    parser.add_argument("--stem", metavar="|".join(settings.STEMS), help="first layers, likewise")
    parser.add_argument("--dataset", metavar="|".join(settings.DATASETS), help="data set, likewise")
    parser.add_argument("--normalize", metavar="|".join(settings.NORMALIZE), help="likewise")
    parser.add_argument("--which", default="last", metavar="last|best", help="weights of a run")
    devices = "|".join(settings.DEVICES)
    parser.add_argument("--device", default="auto", metavar=devices, help="default: auto")
    parser.add_argument("--threads", type=int, metavar="N", help="CPU threads (all by default)")


def _evaluate_options(parser: Parser) -> None:
    parser.add_argument("source", nargs="?", metavar="RUN", help="run folder")
    parser.add_argument("--weights", metavar="FILE", help="safetensors, or PyTorch's formats")
    _source_options(parser)
    parser.add_argument("--data", metavar="DIR", help="folder of the data set, or its parent")
    parser.add_argument("--download", action="store_true", help="fetch the data when missing")
    parser.add_argument("--split", default="test", metavar="test|train", help="default: test")
    parser.add_argument("--limit", type=int, metavar="N", help="only the first N images")
    parser.add_argument("--quiet", action="store_true", help="no progress bar")


def _predict_options(parser: Parser) -> None:
    parser.add_argument("source", metavar="RUN|FILE", help="run folder or weight file")
    parser.add_argument("images", nargs="+", metavar="IMAGE", help="picture files")
    _source_options(parser)
    parser.add_argument("--top", type=int, default=5, metavar="K", help="classes shown (5)")
    parser.add_argument("--size", type=int, metavar="PIXELS", help="side that pictures get")
