"""The whole test suite on the device: MINIRES_TEST_DEVICE=cuda pytest

Tests are written for NumPy arrays. Here every operation and every kernel that is called with such
arrays moves them to the device, computes there with CuPy, gradients too, and moves the results
back, so that each test checks the device's arithmetic against what it always expects. Operations
that only look at memory in another way stay where they are: their results must be views. So do
calls inside `reference()`: they say what is expected.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from minires.kernels.dispatch import KERNELS, Kernel, _reference_only
from minires.op import OPS, Op

__all__ = ["EVERYWHERE", "TWIN", "compute_on_device", "left_out", "reason_to_skip"]

EVERYWHERE = os.environ.get("MINIRES_TEST_DEVICE") == "cuda"
TWIN = "cuda" if EVERYWHERE else "cpu"  # what runs where there is a twin

VIEWS = {"broadcast_to", "expand_dims", "flatten", "getitem", "reshape", "squeeze", "transpose"}

# test_NAME.py of tests/kernels: how the CPU's twins compute, which the device does in other ways
CPU_ALONE = (
    "bf16",
    "compile_cache",
    "conv_norm",
    "direct",
    "finish",
    "isa",
    "microkernel",
    "parallel",
    "plan",
    "tiled",
    "winograd",
)
# what a test is about that does not exist on the device: a part of its name, and why
ELSEWHERE = {
    "tests/gpu/": "runs on the device anyhow",
    **{
        f"tests/kernels/test_{name}.py": "about the CPU's twins; tests/gpu has the kernels"
        for name in CPU_ALONE
    },
    "that_make_no_whole_vectors": "about the CPU's twins; tests/gpu has the kernels",
    "test_nothing_is_written_outside": "about the CPU's twins; tests/gpu has the kernels",
    "test_twin_equals_reference_to_the_last_bit": "a GPU fuses multiply and add",
    "test_in_float32_it_is_right_to_the_last_digits": "about the CPU's vectors",
    "test_other_memory_orders": "what is moved to the device is contiguous there",
    "test_what_does_not_fit_is_refused": "there a wrong index makes its image NaN",
    "tests/benchmarks/": "measures the CPU",
    "tests/test_ahead.py": "about the CPU's compiler",
    "tests/test_memory.py": "in processes of their own, which compute on the CPU",
    "tests/test_packaging.py": "in processes of their own, which compute on the CPU",
    "test_the_command_prints_json": "in a process of its own, which computes on the CPU",
    "tests/test_mutations.py": "changes the CPU's twins",
    "tests/test_threads.py": "about threads of the CPU",
    "fast_twins": "tests/gpu/test_ops.py does the same on the device",
    "kernel_twin": "tests/gpu/test_ops.py does the same on the device",
    "cross_entropy: label": "there a wrong label makes the loss NaN",
    "test_bf16_learns_alike": "about the CPU's bf16 instructions",
    "test_a_precision_that_the_cpu_lacks": "about the CPU's bf16 instructions",
    "test_logistic_regression_fails": "about the built-in pictures, 10 million numbers of them",
    "test_example_prints_what_it_says": "31 steps of 64 images take minutes in the emulator",
    "test_a_long_chain": "thousands of launches, and a limit of time",
}


def reason_to_skip(nodeid: str) -> str | None:
    """Why a test is left out on the device."""
    return next((reason for part, reason in ELSEWHERE.items() if part in nodeid), None)


class Mover:
    """Moves the arrays of one call to the device, and the results back."""

    def __init__(self, cupy: Any) -> None:
        self.cupy = cupy
        self.pairs: list[tuple[np.ndarray, Any, bytes]] = []

    def there(self, value: Any) -> Any:
        """`value` with its NumPy arrays on the device; one that comes twice is one there."""
        if isinstance(value, list | tuple):
            moved = [self.there(item) for item in value]
            return moved if isinstance(value, list) else tuple(moved)
        if not isinstance(value, np.ndarray) or value.dtype.kind not in "fiub":
            return value
        for host, device, _ in self.pairs:
            if host is value:
                return device
        device = self.cupy.asarray(value)
        self.pairs.append((value, device, device.get().tobytes()))
        return device

    def back(self, value: Any) -> Any:
        """The reverse; an argument comes back as itself."""
        if isinstance(value, list | tuple):
            fetched = [self.back(item) for item in value]
            return fetched if isinstance(value, list) else tuple(fetched)
        if not isinstance(value, self.cupy.ndarray):
            return value
        for host, device, _ in self.pairs:
            if device is value:
                return host
        return value.get()

    def write_back(self) -> None:
        """What a kernel wrote into its arguments; others may be writing into the rest by now."""
        for host, device, before in self.pairs:
            after = device.get()
            if after.tobytes() != before:
                host[...] = after


def compute_on_device(cupy: Any) -> None:
    """Send every operation and kernel there, for the rest of this process."""
    for op in OPS.values():
        if isinstance(op, Op) and op.name not in VIEWS:
            op.function = _operation(cupy, op.function)
    call = Kernel.__call__

    def on_device(self: Kernel, *args: Any, **kwargs: Any) -> Any:
        ours = any(isinstance(a, np.ndarray) for a in args) and self.name in KERNELS
        if not ours or _reference_only.get():
            return call(self, *args, **kwargs)
        mover = Mover(cupy)
        result = call(self, *mover.there(args), **kwargs)
        mover.write_back()
        return mover.back(result)

    Kernel.__call__ = on_device  # type: ignore[method-assign]


def _operation(cupy: Any, function: Callable[..., Any]) -> Callable[..., Any]:
    def moved(*arrays: Any, **params: Any) -> Any:
        mover = Mover(cupy)
        given = arrays if _reference_only.get() else mover.there(arrays)
        if not mover.pairs:
            return function(*arrays, **params)
        y, backward = function(*given, **params)
        count = backward.__code__.co_argcount  # g, needs, take

        def gradients(g: Any, needs: Any = None, take: Any = None) -> Any:
            back = Mover(cupy)
            more = needs, lambda position: _fresh(cupy, take(position))
            return back.back(backward(back.there(g), *more[: count - 1]))

        closures = (lambda g: gradients(g), lambda g, needs: gradients(g, needs), gradients)
        return mover.back(y), closures[count - 1]

    moved.__wrapped__ = function  # type: ignore[attr-defined]
    return moved


def _fresh(cupy: Any, array: Any) -> Any:
    return None if array is None else cupy.array(array)


def skip_what_is_elsewhere(items: list[pytest.Item]) -> None:
    """Mark the tests that say nothing about the device."""
    for item in items:
        if reason := reason_to_skip(item.nodeid):
            item.add_marker(pytest.mark.skip(reason=reason))


def left_out(skipped: list[pytest.TestReport]) -> list[str]:
    """A line for each reason why tests were skipped, with their number."""
    reasons = Counter(
        (report.nodeid.partition("::")[0], report.longrepr[2].removeprefix("Skipped: "))
        for report in skipped
        if isinstance(report.longrepr, tuple)
    )
    return [f"{count:5} {file}: {reason}" for (file, reason), count in sorted(reasons.items())]
