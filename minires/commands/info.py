"""`minires info`: versions and machine, the networks there are, the layers of one."""

from __future__ import annotations

import argparse
import json
from typing import Any

from ..train import config as settings
from ..train import describe_model, describe_system
from .options import add_command

__all__ = ["add", "run"]


def add(commands: Any) -> None:
    """Add the command to `commands`."""
    text, examples = "show versions and machine, or a network", ["", "--model resnet18"]
    parser = add_command(commands, "info", run, text, examples)
    parser.add_argument("--model", metavar="NAME", help="list the layers of a network")
    parser.add_argument("--models", action="store_true", help="list the networks there are")
    parser.add_argument("--classes", type=int, default=10, metavar="N", help="default: 10")
    parser.add_argument("--stem", metavar="|".join(settings.STEMS), help="first layers")


def run(given: argparse.Namespace) -> int:
    """Describe and print."""
    if given.models:
        from .. import models

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
