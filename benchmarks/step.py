"""Whole training steps or inference against PyTorch, alternating in one process.

    python -m benchmarks.step --model resnet18 --mode train --batch 128 [--threads N] [--json]

Both engines start from the same weights and see the same images. First their outputs and losses
must agree; then they take turns, a few steps a turn, and each round gives one ratio. The rival is
the faster of PyTorch's variants: eager in channels_last, and torch.compile. Speeds are medians in
images a second; `spread` is the lowest and highest ratio of the rounds. Needs `pip install -e
'.[bench]'`. Ends with status 1 when the engines disagree.
"""
# pyright: reportMissingImports=false

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

import minires as mr
import minires.functional as F
from minires import models, optim
from minires.weights import to_file

__all__ = ["MODELS", "main", "measure"]

# name: (arguments of the constructor, image size)
MODELS: dict[str, tuple[dict[str, Any], int]] = {
    "resnet18": ({"num_classes": 10, "stem": "cifar"}, 32),
    "resnet20": ({"num_classes": 10, "shortcut": "A"}, 32),
    "resnet50": ({"num_classes": 1000, "stem": "imagenet"}, 224),
}
VARIANTS = ("eager", "compile")
SGD = {"lr": 0.01, "momentum": 0.9, "weight_decay": 5e-4}
AGREE = 1e-3  # of the largest output: two float32 engines, dozens of layers deep
Step = Callable[[], float]  # one step or forward pass; returns a number to compare


def batch(size: int, count: int, classes: int) -> tuple[np.ndarray, np.ndarray]:
    """Images (count, size, size, 3) and labels (count,)."""
    rng = np.random.default_rng(0)
    images = rng.standard_normal((count, size, size, 3), np.float32)
    return images, rng.integers(0, classes, count)


def our_step(model: Any, mode: str, images: np.ndarray, labels: np.ndarray) -> Step:
    """A step of minires through its public API."""
    if mode == "infer":
        model.eval()

        @mr.no_grad()
        def infer() -> float:
            return float(model(images).numpy()[0, 0])

        return infer
    optimiser = optim.SGD(model.parameters(), nesterov=True, **SGD)

    def train() -> float:
        loss = F.cross_entropy(model(images), labels)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        return loss.item()

    return train


def torch_step(
    name: str, variant: str, state: dict[str, np.ndarray], mode: str, images: Any, labels: Any
) -> Step:
    """The same step in PyTorch."""
    import torch

    from tests.reference.make_networks import BUILD

    model = BUILD[name](**MODELS[name][0]).float()
    tensors = {key: torch.from_numpy(to_file(key, a).copy()) for key, a in state.items()}
    model.load_state_dict(tensors)
    model = model.to(memory_format=torch.channels_last)
    call = torch.compile(model) if variant == "compile" else model
    x, y = torch.from_numpy(images).permute(0, 3, 1, 2), torch.from_numpy(labels)
    if mode == "infer":
        model.eval()

        def infer() -> float:
            with torch.inference_mode():
                return call(x)[0, 0].item()

        return infer
    optimiser = torch.optim.SGD(model.parameters(), nesterov=True, foreach=True, **SGD)

    def train() -> float:
        loss = torch.nn.functional.cross_entropy(call(x), y)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        return loss.item()

    return train


def speed(step: Step, count: int, seconds: float) -> float:
    """Images a second of `count` images a step over about `seconds`, one step at least."""
    done, start = 0, time.perf_counter()
    while not done or time.perf_counter() - start < seconds:
        step()
        done += 1
    return done * count / (time.perf_counter() - start)


def measure(
    name: str, mode: str, count: int, rounds: int, variants: Sequence[str]
) -> dict[str, Any]:
    """Check that the engines agree, then time them in turns."""
    arguments, size = MODELS[name]
    mr.manual_seed(0)
    model = getattr(models, name)(**arguments)
    state = model.state_dict()
    images, labels = batch(size, count, arguments["num_classes"])
    ours = our_step(model, mode, images, labels)
    rivals = {v: torch_step(name, v, state, mode, images, labels) for v in variants}
    first = ours()
    for variant, rival in rivals.items():
        other = rival()
        if abs(first - other) > AGREE * max(abs(first), 1):
            raise SystemExit(f"minires gives {first} but PyTorch ({variant}) {other}")
    for step in (ours, *rivals.values()):  # the second step is the first with warm buffers
        step()
    best = max(rivals, key=lambda v: speed(rivals[v], count, 1)) if len(rivals) > 1 else variants[0]
    pairs = [(speed(ours, count, 1), speed(rivals[best], count, 1)) for _ in range(rounds)]
    ratios = [a / b for a, b in pairs]
    return {
        "model": name,
        "mode": mode,
        "batch": count,
        "minires": round(statistics.median(a for a, _ in pairs), 1),
        "rival": round(statistics.median(b for _, b in pairs), 1),
        "variant": best,
        "ratio": round(statistics.median(ratios), 3),
        "spread": [round(min(ratios), 3), round(max(ratios), 3)],
    }


def peak_memory(name: str, mode: str, count: int, threads: int) -> float:
    """Largest resident memory of minires alone, in a process of its own, MB."""
    command = [sys.executable, "-m", "benchmarks.step", "--model", name, "--mode", mode]
    command += ["--batch", str(count), "--threads", str(threads), "--alone"]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def alone(name: str, mode: str, count: int) -> float:
    """Run five steps of minires and return this process's peak memory, MB (Linux)."""
    arguments, size = MODELS[name]
    step = our_step(
        getattr(models, name)(**arguments), mode, *batch(size, count, arguments["num_classes"])
    )
    for _ in range(5):
        step()
    # not ru_maxrss: that starts from the size of the process which forked this one
    with open("/proc/self/status") as file:
        peak = next(line.split()[1] for line in file if line.startswith("VmHWM"))
    return int(peak) / 1024


def cpu_name() -> str:
    """The processor, as the system calls it."""
    try:
        with open("/proc/cpuinfo") as file:
            return next(line.split(":")[1].strip() for line in file if "model name" in line)
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def main(argv: Sequence[str] | None = None) -> int:
    """The command line; returns its exit status."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.step", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--model", choices=MODELS, default="resnet18")
    parser.add_argument("--mode", choices=["train", "infer"], default="train")
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--variants", nargs="+", choices=VARIANTS, default=list(VARIANTS))
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--alone", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args(argv)
    mr.set_threads(given.threads)
    if given.alone:
        print(alone(given.model, given.mode, given.batch))
        return 0
    import torch

    torch.set_num_threads(given.threads)
    result = measure(given.model, given.mode, given.batch, given.rounds, given.variants)
    result["peak_rss_mb"] = round(peak_memory(given.model, given.mode, given.batch, given.threads))
    result.update(cpu=cpu_name(), threads=given.threads, torch=torch.__version__)
    result["date"] = time.strftime("%Y-%m-%d")
    if given.json:
        print(json.dumps(result))
    else:
        for key, value in result.items():
            print(f"{key:12} {value}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
