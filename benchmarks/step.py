"""Whole training steps or inference against PyTorch or ONNX Runtime, alternating in one process.

    python -m benchmarks.step --model resnet18 --mode train|infer --batch 128 --dtype float32|bf16
                              --against torch|onnxruntime [--threads N] [--rounds N] [--json]

Both engines start from the same weights and see the same images. First their outputs and losses
must agree; then they take turns, about a second a turn, and each round gives one ratio. The rival
is the faster of PyTorch's variants: eager in channels_last, and torch.compile (bf16: both under
autocast). Speeds are medians in images a second; `spread` is the lowest and highest ratio of the
rounds; `peak_rss_mb` is the memory of minires alone, in a process of its own. Needs `pip install -e
'.[bench]'`. Ends with status 1 when the engines disagree and 2 when asked for what cannot be.

Both engines held to AVX2 (`isa` and `held` in the output say so):

    MINIRES_ISA=avx2 ATEN_CPU_CAPABILITY=avx2 ONEDNN_MAX_CPU_ISA=AVX2 python -m benchmarks.step ...
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from typing import Any

import numpy as np

import minires as mr
import minires.functional as F
from minires import models, optim
from minires.backend import resolve_precision

from .machine import compile_alone, describe, peak_memory
from .rivals import SGD, VARIANTS, Step, rival_step, rival_version

__all__ = ["MODELS", "batch", "main", "measure", "our_step", "speed"]

# name: (arguments of the constructor, image size)
MODELS: dict[str, tuple[dict[str, Any], int]] = {
    "resnet18": ({"num_classes": 10, "stem": "cifar"}, 32),
    "resnet20": ({"num_classes": 10, "shortcut": "A"}, 32),
    "resnet50": ({"num_classes": 1000, "stem": "imagenet"}, 224),
}
DTYPES = ("float32", "bf16")
# of the largest output: two engines, dozens of layers deep
AGREE = {"float32": 1e-3, "bf16": 0.1}
TURN = 1.0  # seconds


def batch(size: int, count: int, classes: int) -> tuple[np.ndarray, np.ndarray]:
    """Images (count, size, size, 3) and labels (count,)."""
    rng = np.random.default_rng(0)
    images = rng.standard_normal((count, size, size, 3), np.float32)
    return images, rng.integers(0, classes, count)


def our_step(
    model: Any, mode: str, images: np.ndarray, labels: np.ndarray, dtype: str = "float32"
) -> Step:
    """A step of minires through its public API."""
    if mode == "infer":
        model.eval()

        @mr.no_grad()
        def infer() -> np.ndarray:
            with mr.precision(dtype):
                return model(images).numpy()

        return infer
    optimiser = optim.SGD(model.parameters(), **SGD)

    def train() -> np.ndarray:
        with mr.precision(dtype):
            out = model(images)
            loss = F.cross_entropy(out, labels)
            optimiser.zero_grad()
            loss.backward()
        optimiser.step()
        return np.append(loss.item(), out.numpy())

    return train


def speed(step: Step, count: int, seconds: float) -> float:
    """Images a second of `count` images a step over about `seconds`, one step at least."""
    done, start = 0, time.perf_counter()
    while not done or time.perf_counter() - start < seconds:
        step()
        done += 1
    return done * count / (time.perf_counter() - start)


def check_agreement(ours: np.ndarray, other: np.ndarray, who: str, dtype: str = "float32") -> None:
    """Stop unless two engines' numbers are nearly equal."""
    error = float(np.max(np.abs(ours - other)) / max(np.max(np.abs(other)), 1))
    if not error <= AGREE[dtype]:  # a NaN is not
        raise SystemExit(f"minires and {who} differ by {error:.2g}, allowed are {AGREE[dtype]:g}")


def measure(
    name: str,
    mode: str,
    count: int,
    rounds: int,
    against: str = "torch",
    variants: Sequence[str] | None = None,
    threads: int = 1,
    dtype: str = "float32",
) -> dict[str, Any]:
    """Check that the engines agree, then time them in turns."""
    arguments, size = MODELS[name]
    variants = variants or VARIANTS[against]
    mr.manual_seed(0)
    model = getattr(models, name)(**arguments)
    network = name, arguments, model.state_dict()
    data = batch(size, count, arguments["num_classes"])
    ours = our_step(model, mode, *data, dtype)
    rivals = {v: rival_step(against, v, network, mode, *data, threads, dtype) for v in variants}
    first = ours()
    for variant, rival in rivals.items():
        check_agreement(first, rival(), f"{against} ({variant})", dtype)
    for step in (ours, *rivals.values()):  # the second step is the first with warm buffers
        step()
    trial = {v: speed(rival, count, TURN) if len(rivals) > 1 else 0 for v, rival in rivals.items()}
    best = max(trial, key=lambda v: trial[v])
    pairs = [(speed(ours, count, TURN), speed(rivals[best], count, TURN)) for _ in range(rounds)]
    ratios = [a / b for a, b in pairs]
    return {
        "model": name,
        "mode": mode,
        "batch": count,
        "against": against,
        "minires": round(statistics.median(a for a, _ in pairs), 1),
        "rival": round(statistics.median(b for _, b in pairs), 1),
        "variant": best,
        "ratio": round(statistics.median(ratios), 3),
        "spread": [round(min(ratios), 3), round(max(ratios), 3)],
        "rounds": rounds,
    }


def memory_alone(name: str, mode: str, count: int, threads: int) -> float:
    """Largest resident memory of minires alone, in a process of its own, MB."""
    command = [sys.executable, "-m", "benchmarks.step", "--model", name, "--mode", mode]
    command += ["--batch", str(count), "--threads", str(threads), "--alone"]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def run_alone(name: str, mode: str, count: int) -> float:
    """Run five steps of minires and return this process's peak memory, MB."""
    arguments, size = MODELS[name]
    model = getattr(models, name)(**arguments)
    step = our_step(model, mode, *batch(size, count, arguments["num_classes"]))
    for _ in range(5):
        step()
    return peak_memory()


def _options() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.step", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--model", choices=MODELS, default="resnet18")
    parser.add_argument("--mode", choices=["train", "infer"], default="train")
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--dtype", choices=DTYPES, default="float32")
    parser.add_argument("--against", choices=VARIANTS, default="torch")
    parser.add_argument("--variants", nargs="+", choices=VARIANTS["torch"], help="of PyTorch")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--alone", action="store_true", help=argparse.SUPPRESS)
    return parser


def refuse(text: str) -> int:
    """Say on one line what cannot be; the exit status."""
    print(f"benchmarks.step: error: {text}", file=sys.stderr)
    return 2


def main(argv: Sequence[str] | None = None) -> int:
    """The command line; returns its exit status."""
    compile_alone()
    given = _options().parse_args(argv)
    mr.set_threads(given.threads)
    try:
        resolve_precision(given.dtype)
    except RuntimeError as error:
        return refuse(f"--dtype {given.dtype}: {error}")
    if given.alone:
        print(run_alone(given.model, given.mode, given.batch))
        return 0
    if given.against == "onnxruntime" and (
        given.mode == "train" or given.variants or given.dtype != "float32"
    ):
        return refuse("--against onnxruntime: only --mode infer in float32 without --variants")
    version = rival_version(given.against)
    result = measure(
        given.model,
        given.mode,
        given.batch,
        given.rounds,
        given.against,
        given.variants,
        given.threads,
        given.dtype,
    )
    alone = memory_alone(given.model, given.mode, given.batch, given.threads)
    result |= {"dtype": given.dtype, "rival_version": version, "peak_rss_mb": round(alone)}
    result |= describe()
    if given.json:
        print(json.dumps(result))
    else:
        for key, value in result.items():
            print(f"{key:16} {value}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
