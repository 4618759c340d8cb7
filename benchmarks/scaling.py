"""How the cost of training grows with the batch, the threads, the size of images and the depth.

    python -m benchmarks.scaling [batch] [threads] [size] [depth]
                                 [--threads N] [--rounds N] [--json]

The settings of a series take turns, each after a fixed product of NumPy, and the cost of an image
is the CPU time of all threads in products: what slows the whole machine down slows both. Medians
over the rounds. Threads are compared by elapsed time. A series with a bound gets a verdict:

    batch    cost an image, from 64 to 512 images: within 10 %
    depth    cost an image and layer, from ResNet-20 to ResNet-110: within 10 %
    threads  speed of 2 over 1: at least 1.8

Ends with status 1 when a verdict is no. Needs nothing but minires.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

import minires as mr
from minires import models
from minires.train import describe_plan

from .machine import compile_alone, describe
from .peak import fixed_product
from .step import batch, our_step

__all__ = ["SERIES", "main"]

WITHIN, SPEEDUP = 0.10, 1.8
TURN = 0.5  # seconds
Run = Callable[[], Any]


def training(name: str, count: int, size: int = 32) -> Run:
    """A training step of a model with the CIFAR stem on `count` images."""
    return our_step(models.build(name, 10, "cifar"), "train", *batch(size, count, 10))


def seconds_of(step: Run, clock: Callable[[], float]) -> float:
    """Seconds of one step, of as many as fit into a turn."""
    count, start, until = 0, clock(), time.perf_counter() + TURN
    while not count or time.perf_counter() < until:
        step()
        count += 1
    return (clock() - start) / count


def in_turns(steps: dict[str, Run], rounds: int) -> dict[str, float]:
    """CPU time of each step, in fixed products."""
    found: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(rounds + 1):  # the first round warms up
        for name, step in steps.items():
            step()  # compiled, with buffers of its size
            product = fixed_product()
            cost = seconds_of(step, time.process_time)
            found[name].append(2 * cost / (product + fixed_product()))
    return {name: statistics.median(costs[1:]) for name, costs in found.items()}


def verdict(rows: list[dict[str, Any]], key: str, what: str) -> dict[str, Any]:
    """Whether a figure is the same in all rows."""
    values = [row[key] for row in rows]
    apart = max(values) / min(values) - 1
    text = f"{what} within {apart:.1%} (at most {WITHIN:.0%})"
    return {"holds": apart <= WITHIN, "text": text}


def over_batch(rounds: int, sizes: Sequence[int] = (64, 128, 256, 512)) -> dict[str, Any]:
    """ResNet-20 with batches of different sizes."""
    costs = in_turns({str(n): training("resnet20", n) for n in sizes}, rounds)
    rows = [{"batch": n, "cost": 1000 * costs[str(n)] / n} for n in sizes]
    return {"rows": rows, **verdict(rows, "cost", "cost of an image over the batch:")}


def over_depth(
    rounds: int, depths: Sequence[int] = (20, 32, 44, 56, 110), count: int = 64
) -> dict[str, Any]:
    """He's CIFAR networks; also the cost of 10^9 multiplications."""
    costs = in_turns({str(d): training(f"resnet{d}", count) for d in depths}, rounds)
    rows = []
    for depth in depths:
        layers = describe_plan(f"resnet{depth}", (count, 32, 32))["layers"]
        work = sum(layer["multiplications"] for layer in layers) / count
        cost = 1000 * costs[str(depth)] / count
        row = {"depth": depth, "cost": cost, "cost_of_layer": cost / depth}
        rows.append({**row, "cost_of_1e9": cost / work * 1e9})
    return {"rows": rows, **verdict(rows, "cost_of_layer", "cost of a layer over the depth:")}


def over_size(rounds: int, sizes: Sequence[int] = (32, 48, 64, 96), count: int = 32) -> Any:
    """ResNet-20 on larger images."""
    costs = in_turns({str(s): training("resnet20", count, s) for s in sizes}, rounds)
    rows = []
    for size in sizes:
        cost = 1000 * costs[str(size)] / count
        rows.append({"size": size, "cost": cost, "cost_of_1000_pixels": 1000 * cost / size**2})
    return {"rows": rows}


def over_threads(
    rounds: int, names: Sequence[str] = ("resnet20", "resnet18"), count: int = 128
) -> dict[str, Any]:
    """1 thread against 2, 4, … as many as there are cores, by elapsed time."""
    before, rows = mr.threads(), []
    counts = [1]
    while 2 * counts[-1] <= before:
        counts.append(2 * counts[-1])
    for name in names:
        step = training(name, count)
        times: dict[int, list[float]] = {n: [] for n in counts}
        for i in range(rounds + 1):  # the first round warms up
            for n in counts:
                mr.set_threads(n)
                seconds = seconds_of(step, time.perf_counter)
                if i:
                    times[n].append(seconds)
        for n in counts:
            speedup = statistics.median(a / b for a, b in zip(times[1], times[n]))
            speed = count / statistics.median(times[n])
            rows.append({"model": name, "threads": n, "img_per_s": speed, "speedup": speedup})
    mr.set_threads(before)
    if counts[-1] < 2:
        return {"rows": rows, "holds": None, "text": "2 threads: there is only one here"}
    worst = min(row["speedup"] for row in rows if row["threads"] == 2)
    text = f"2 threads are {worst:.2f} times as fast as 1 (at least {SPEEDUP})"
    return {"rows": rows, "holds": worst >= SPEEDUP, "text": text}


SERIES: dict[str, Callable[..., dict[str, Any]]] = {
    "batch": over_batch,
    "threads": over_threads,
    "size": over_size,
    "depth": over_depth,
}


def main(argv: Sequence[str] | None = None) -> int:
    """The command line; returns its exit status."""
    compile_alone()
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scaling", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("series", nargs="*", metavar="SERIES", help="of the four; all by default")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    given = parser.parse_args(argv)
    if unknown := set(given.series) - set(SERIES):
        parser.error(f"SERIES: {unknown.pop()!r} must be one of {', '.join(SERIES)}")
    mr.set_threads(given.threads)
    found: dict[str, Any] = {}
    for name in given.series or SERIES:
        found[name] = result = SERIES[name](given.rounds)
        if not given.json:
            for row in result["rows"]:
                values = (f"{v:.4g}" if isinstance(v, float) else str(v) for v in row.values())
                print("  ".join(f"{key} {value:9}" for key, value in zip(row, values)))
            if "text" in result:
                print({True: "yes", False: "NO", None: "-"}[result["holds"]], result["text"])
    if given.json:
        print(json.dumps({"series": found, "rounds": given.rounds, **describe()}))
    return 1 if any(result.get("holds") is False for result in found.values()) else 0


if __name__ == "__main__":
    sys.exit(main())
