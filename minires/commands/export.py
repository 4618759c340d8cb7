"""`minires export`: a trained network for other programs."""

from __future__ import annotations

import argparse
import json
from typing import Any

from ..train import config as settings
from ..train.export import FORMATS, export
from .options import add_command

__all__ = ["add", "run"]

EXAMPLES = [
    "runs/quick --to pth",
    "runs/quick/best.safetensors --to safetensors --output net.safetensors",
    "RUN --to onnx --fold",
    "resnet50-FILE.pth --to onnx --output resnet50.onnx",
]


def add(commands: Any) -> None:
    """Add the command to `commands`."""
    text = "write a network's weights for PyTorch, or the network as ONNX"
    parser = add_command(commands, "export", run, text, EXAMPLES, needs_run=True)
    parser.add_argument("source", metavar="RUN|FILE", help="run folder or weight file")
    parser.add_argument("--to", required=True, metavar="|".join(FORMATS), help="file format")
    parser.add_argument("--output", metavar="PATH", help="file to write (beside the weights)")
    text = "ONNX: put BatchNorm into the convolutions, for speed"
    parser.add_argument("--fold", action="store_true", help=text)
    text = "ONNX: version of its operators (the newest that is known; older runtimes want less)"
    parser.add_argument("--opset", type=int, metavar="N", help=text)
    text = "ONNX: side of the images (as in training)"
    parser.add_argument("--size", type=int, metavar="PIXELS", help=text)
    text = "network, if the file neither says nor looks like one of the usual"
    parser.add_argument("--model", metavar="NAME", help=text)
    parser.add_argument("--stem", metavar="|".join(settings.STEMS), help="first layers, likewise")
    parser.add_argument("--which", default="last", metavar="last|best", help="weights of a run")


def run(given: argparse.Namespace) -> int:
    """Write, and say what and where."""
    names = ("to", "output", "fold", "opset", "model", "stem", "size", "which")
    done = export(given.source, **{name: getattr(given, name) for name in names})
    if given.json:
        print(json.dumps(done))
    else:
        network = f"{done['model']}, {done['classes']} classes ({done['loaded']})"
        print(f"{network}: {done['output']}, {done['bytes']:,} bytes")
    return 0
