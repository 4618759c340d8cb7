"""The whole of `minires device-test`: a dictionary, and the lines that show it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from .clock import MOST, cupy_module
from .rates import copy_rate, describe, product_rates
from .samples import compare_samples
from .step import time_steps
from .suite import SUITES, run_suite, why_no_suite
from .works import time_works, works

__all__ = ["device_test", "lines"]

COPIED, SIDE = 1 << 28, 8192  # bytes; of a square matrix
TINY = "sizes are tiny: the times mean nothing"


def device_test(
    batch: int, tests: bool, tiny: bool, tell: Callable[[str], None] = lambda text: None
) -> dict[str, Any]:
    """Check and measure the GPU of this machine.

    batch: images of a step; tests: also the tests of a checkout; tiny: sizes that only show that
    everything runs. `tell` hears what is about to begin. Raises RuntimeError, which says what is
    missing, where there is no GPU.
    """
    cupy_module()
    found: dict[str, Any] = {"device": describe(), "batch": batch}
    if tiny:
        found["note"] = TINY
    tell("comparing sample calls with their references on the CPU")
    samples = list(compare_samples())
    wrong = [s._asdict() for s in samples if not s.passed]
    found["samples"] = {"compared": len(samples), "wrong": wrong}
    found["tests"] = _suites(tell) if tests else "left out"
    tell("timing")
    most, share = (1, 28) if tiny else (MOST, 1)
    found["copy_gb_s"] = copy_rate(1 << 12 if tiny else COPIED, most) / 1e9
    rates = product_rates(16 if tiny else SIDE, most)
    found["product_tflop_s"] = {name: rate / 1e12 for name, rate in rates.items()}
    rows = time_works(works(batch, share), 1e9 * found["copy_gb_s"], rates["float32"], most)
    found["ops"] = list(rows)
    found["model"] = "resnet20" if tiny else "resnet18"
    found["steps"] = time_steps(found["model"], batch, 1 if tiny else 20)
    suites = found["tests"].values() if isinstance(found["tests"], dict) else []
    found["passed"] = not wrong and all(suite["passed"] for suite in suites)
    return found


def _suites(tell: Callable[[str], None]) -> dict[str, Any] | str:
    if reason := why_no_suite():
        return reason
    found = {}
    for name, (words, everywhere) in SUITES.items():
        tell(name)
        found[name] = run_suite(words, everywhere)
    return found


def lines(found: dict[str, Any]) -> Iterator[str]:
    """The report for a reader."""
    yield ", ".join(f"{key} {value}" for key, value in found["device"].items())
    if "note" in found:
        yield found["note"]
    samples = found["samples"]
    right = samples["compared"] - len(samples["wrong"])
    yield f"{right} of {samples['compared']} sample calls agree with the CPU"
    for wrong in samples["wrong"]:
        yield f"  wrong by {wrong['error']:.1e}: {wrong['dtype']} {wrong['name']}"
    if isinstance(found["tests"], str):
        yield f"tests: {found['tests']}"
    else:
        for name, suite in found["tests"].items():
            yield f"{name}: {suite['summary']}"
            yield from (f"  {line}" for line in suite["failed"])
    rates = ", ".join(f"{n} {rate:.1f}" for n, rate in found["product_tflop_s"].items())
    yield f"copying {found['copy_gb_s']:.0f} GB/s; products in TFLOP/s: {rates}"
    yield f"{'ms':>9}{'GB/s':>8}{'TFLOP/s':>9}{'floor ms':>10}{'share':>7}  float32 kernel"
    for row in found["ops"]:
        rate = f"{row['tflop_s']:9.2f}" if row["tflop_s"] else " " * 9
        yield (
            f"{row['ms']:9.4f}{row['gb_s']:8.0f}{rate}{row['floor_ms']:10.4f}{row['share']:7.0%}"
            f"  {row['op']} {row['shape']}"
        )
    for row in found["steps"]:
        yield (
            f"{found['model']} step, batch {found['batch']}, {row['engine']} {row['precision']}: "
            f"{row['ms']:.2f} ms, {row['images_s']:.0f} images/s"
        )
    yield "passed" if found["passed"] else "FAILED"
