"""`minires info`: versions and machine, the networks there are, the layers and plan of one."""

from __future__ import annotations

import argparse
import json
from typing import Any

from ..train import ConfigError, describe_model, describe_plan, describe_system
from ..train import config as settings
from .options import add_command

__all__ = ["add", "run"]


def add(commands: Any) -> None:
    """Add the command to `commands`."""
    text = "show versions and machine, or a network"
    examples = ["", "--model resnet18", "--plan resnet18"]
    parser = add_command(commands, "info", run, text, examples)
    parser.add_argument("--model", metavar="NAME", help="list the layers of a network")
    parser.add_argument("--plan", metavar="NAME", help="list how its convolutions are computed")
    parser.add_argument("--input", metavar="N,H,W", help="batch for --plan (default: 128,32,32)")
    parser.add_argument("--precision", metavar="float32|bf16", help="of --plan")
    parser.add_argument("--models", action="store_true", help="list the networks there are")
    parser.add_argument("--classes", type=int, default=10, metavar="N", help="default: 10")
    parser.add_argument("--stem", metavar="|".join(settings.STEMS), help="first layers")


def run(given: argparse.Namespace) -> int:
    """Describe and print."""
    for option in ("input", "precision"):
        if getattr(given, option) is not None and given.plan is None:
            raise ConfigError(f"--{option}: goes with --plan only")
    show = _print_values
    if given.models:
        from .. import models

        found: dict[str, Any] = {"models": models.names()}
    elif given.plan is not None:
        size, operands = _size(given.input or "128,32,32"), given.precision or "float32"
        found = describe_plan(given.plan, size, given.stem, operands)
        show = _print_plan
    elif given.model is not None:
        found, show = describe_model(given.model, given.classes, given.stem), _print_layers
    else:
        found = describe_system()
    if given.json:
        print(json.dumps(found))
    else:
        show(found)
    return 0


def _print_values(found: dict[str, Any]) -> None:
    for key, value in found.items():
        print(f"{key:15}", " ".join(map(str, value)) if isinstance(value, list) else value)


def _print_layers(found: dict[str, Any]) -> None:
    for layer in found["layers"]:
        shapes = ", ".join(f"{n} {'x'.join(map(str, s))}" for n, s in layer["shapes"].items())
        print(
            f"{layer['name']:28} {layer['type']:14} {layer['parameters']:>11,}  {shapes}".rstrip()
        )
    print(f"{found['model']}, {found['classes']} classes: {found['parameters']:,} parameters")


def _size(text: str) -> tuple[int, int, int]:
    numbers = [int(part) for part in text.split(",") if part.strip().isdigit()]
    if len(numbers) != 3 or text.count(",") != 2 or 0 in numbers:
        raise ConfigError(f"--input: {text!r} must be three positive numbers, as in 128,32,32")
    n, h, w = numbers
    return n, h, w


def _print_plan(found: dict[str, Any]) -> None:
    for layer in found["layers"]:
        x, w = ("x".join(map(str, layer[part])) for part in ("input", "weight"))
        stride = "" if layer["stride"] == [1, 1] else f"stride {layer['stride'][0]}"
        groups = "" if layer["groups"] == 1 else f"{layer['groups']} groups"
        count = layer["multiplications"] / 1e9
        text = f"{layer['name']:28} {layer['algorithm']:10} {count:7.2f}e9  {x:>17} * {w:14}"
        print(f"{text} {stride} {groups}".rstrip())
    last = ", ".join(f"{key} {found[key]}" for key in ("batch", "precision", "instructions"))
    print(f"{found['model']}, {last}")
