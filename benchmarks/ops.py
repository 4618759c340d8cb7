"""Each distinct layer shape of a network against PyTorch, in turns, with errors and GFLOP/s.

    python -m benchmarks.ops --model resnet18 [--batch N] [--threads N] [--rounds N] [--only TEXT]
                             [--json]

For every distinct convolution the forward pass and both gradients, and BatchNorm, pooling,
classifier, loss and update. A row: milliseconds (medians), the ratio of the medians, GFLOP/s by the
plain formula and their share of the machine's measured peak (Winograd needs fewer operations, so
that it may pass 100 %), and the relative RMS error of both against float64. Without PyTorch its
columns are empty. Ends with status 1 when one of our errors is out of bounds.
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

import numpy as np

import minires as mr

from .machine import compile_alone, describe
from .peak import peak
from .step import MODELS
from .works import Work, works

__all__ = ["main", "measure"]

TURN = 0.05  # seconds a turn, one call at least
BATCH = {"resnet50": 16}  # where it is not 128
COLUMNS = "  ours ms theirs ms  ratio  GFLOP/s  peak    error   theirs  algorithm  what"


def _torch(threads: int) -> Any:
    """PyTorch, or None with a line on stderr."""
    try:
        import torch  # type: ignore[import-not-found]
    except ImportError:
        print("benchmarks.ops: no PyTorch here, so only minires is timed", file=sys.stderr)
        return None
    torch.set_num_threads(threads)
    return torch


def seconds_of(call: Callable[[], Any], turn: float) -> float:
    """Seconds of one call, of as many as fit into a turn."""
    count, start = 0, time.perf_counter()
    while not count or time.perf_counter() - start < turn:
        call()
        count += 1
    return (time.perf_counter() - start) / count


def error_of(found: Any, exact: Any) -> float:
    """The largest relative RMS error of an array, or of those in a list."""
    pairs = zip(found, exact) if isinstance(exact, list) else [(found, exact)]
    return max(float(np.sqrt(np.mean((f - e) ** 2) / np.mean(e**2))) for f, e in pairs)


def measure(work: Work, torch: Any, rounds: int, turn: float = TURN) -> dict[str, Any]:
    """A row: check, warm up, then time in turns."""
    exact = None if work.exact is None else work.exact()
    rival = None if torch is None else work.theirs(torch)
    errors = [
        None if run is None or exact is None else error_of(run(), exact)
        for run in (work.ours, rival)
    ]
    for run in (work.ours, rival):
        if run is not None:
            run()
    pairs = [
        (seconds_of(work.ours, turn), seconds_of(rival, turn) if rival else None)
        for _ in range(rounds)
    ]
    ours = statistics.median(a for a, _ in pairs)
    theirs = statistics.median([b for _, b in pairs if b] or [0]) or None
    rate, top = work.flops / ours / 1e9 or None, peak()
    return {
        "op": work.op,
        "shape": work.shape,
        "algorithm": work.algorithm,
        "minires_ms": round(1e3 * ours, 4),
        "rival_ms": theirs and round(1e3 * theirs, 4),
        "ratio": theirs and round(theirs / ours, 3),
        "gflops": rate and round(rate, 1),
        "share_of_peak": round(rate / top, 3) if rate and top else None,
        "error": errors[0],
        "rival_error": errors[1],
        "ok": errors[0] is None or bool(errors[0] <= work.bound),
    }


def table_line(row: dict[str, Any]) -> str:
    """The row for a reader, under COLUMNS."""

    def number(key: str, form: str, width: int) -> str:
        return format(row[key], form) if row[key] is not None else " " * width

    parts = [
        number("minires_ms", "9.3f", 9),
        number("rival_ms", "9.3f", 9),
        number("ratio", "6.2f", 6),
        number("gflops", "8.1f", 8),
        number("share_of_peak", "5.0%", 5),
        number("error", "8.1e", 8),
        number("rival_error", "8.1e", 8),
        f" {row['algorithm']:10}",
        f"{row['op']:23} {row['shape']}",
    ]
    return " ".join(parts) + ("" if row["ok"] else "  OUT OF BOUNDS")


def main(argv: Sequence[str] | None = None) -> int:
    """The command line; returns its exit status."""
    compile_alone()
    parser = argparse.ArgumentParser(prog="python -m benchmarks.ops", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--model", choices=MODELS, default="resnet18")
    parser.add_argument("--batch", type=int, help="default: 128, 16 for resnet50")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", default="", metavar="TEXT", help="rows whose name contains it")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    given = parser.parse_args(argv)
    mr.set_threads(given.threads)
    torch, batch = _torch(given.threads), given.batch or BATCH.get(given.model, 128)
    top = peak()
    head = {"model": given.model, "batch": batch, "rounds": given.rounds, **describe()}
    head["peak_gflops"] = top and round(top, 1)
    head["torch"] = torch and torch.__version__
    if not given.json:
        print(*(f"{key} {value}" for key, value in head.items()), sep=", ")
        print(COLUMNS)
    rows = []
    for work in works(given.model, *MODELS[given.model], batch):
        if given.only in f"{work.op} {work.shape} {work.algorithm}":
            rows.append(measure(work, torch, given.rounds))
            if not given.json:
                print(table_line(rows[-1]), flush=True)
    if given.json:
        print(json.dumps({**head, "rows": rows}))
    return 0 if rows and all(row["ok"] for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
