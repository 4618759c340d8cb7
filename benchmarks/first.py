"""How long a new process takes to its first training step, from a cold and from a warm cache.

    python -m benchmarks.first [--model resnet18] [--batch 128] [--rounds N] [--json]

Seconds from the start of Python to the end of the first step, imports included. Cold: with an empty
folder of compiled kernels; warm: with the folder that this left behind, the median of the rounds.
Bounds: 60 s cold and 5 s warm. Ends with status 1 when one is exceeded. Needs nothing but minires.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence

from .machine import describe
from .step import MODELS

__all__ = ["first_step", "main"]

COLD, WARM = 60.0, 5.0  # seconds

STEP = """
import sys
from benchmarks.step import MODELS, batch, our_step
from minires import models
name, count = sys.argv[1], int(sys.argv[2])
arguments, size = MODELS[name]
model = getattr(models, name)(**arguments)
our_step(model, "train", *batch(size, count, arguments["num_classes"]))()
"""


def first_step(model: str, batch: int, folder: str) -> float:
    """Seconds of a process that does one step, with this folder of compiled kernels."""
    start = time.perf_counter()
    command = [sys.executable, "-c", STEP, model, str(batch)]
    subprocess.run(command, check=True, env={**os.environ, "NUMBA_CACHE_DIR": folder})
    return time.perf_counter() - start


def main(argv: Sequence[str] | None = None) -> int:
    """The command line; returns its exit status."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.first", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--model", choices=MODELS, default="resnet18")
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    given = parser.parse_args(argv)
    with tempfile.TemporaryDirectory() as folder:
        cold = first_step(given.model, given.batch, folder)
        warm = [first_step(given.model, given.batch, folder) for _ in range(given.rounds)]
    found = {
        "model": given.model,
        "batch": given.batch,
        "cold_s": round(cold, 2),
        "warm_s": round(statistics.median(warm), 2),
        "holds": cold <= COLD and statistics.median(warm) <= WARM,
        **describe(),
    }
    if given.json:
        print(json.dumps(found))
    else:
        for key, value in found.items():
            print(f"{key:16} {value}")
    return 0 if found["holds"] else 1


if __name__ == "__main__":
    sys.exit(main())
