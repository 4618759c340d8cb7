"""The GPU of this machine, measured; or a training step on GPUs, on paper.

    python -m benchmarks.gpu [--batch N]    # what `minires device-test --no-tests` finds, as JSON
    python -m benchmarks.gpu --model resnet18 --paper [--batch N] [--json]

On paper: what the CUDA kernels move and compute, and the time that this takes at the least. The
model runs forward once on the CPU, and from the shapes that its kernels see follow the bytes that
each launch on the GPU has to read and write, every array once, and its multiplications and
additions. The floor of a launch is the longer of bytes / bandwidth and operations / peak, by what
the makers publish; no GPU is needed and none is measured. `ideal` is a step whose products read the
images themselves, as an implicit product would: how much of the floor columns and transforms cost.
SGD with momentum; float32 throughout, products by float32 or by TF32 units. The launches, bytes and
operations printed are those of float32, where Winograd's algorithm does the large 3x3 convolutions.

Left out: launch times, the loss, running statistics.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

import minires as mr
from minires import models
from minires.backend import gpu_remedy
from minires.gpu import device_test
from minires.kernels.collect import PARTS
from minires.kernels.conv_cuda import WORKSPACE
from minires.kernels.dispatch import observe, reference
from minires.kernels.winograd_cuda import pays

__all__ = ["DEVICES", "Launch", "floor", "main", "paper", "step_launches", "trace", "updates"]

# name: (arguments of the constructor, image size)
MODELS: dict[str, tuple[dict[str, Any], int]] = {
    "resnet18": ({"num_classes": 1000, "stem": "imagenet"}, 224),
    "resnet50": ({"num_classes": 1000, "stem": "imagenet"}, 224),
    "resnet20": ({"num_classes": 10, "shortcut": "A"}, 32),
}
NUMBER = 4  # bytes


class Device(NamedTuple):
    """Bytes and operations a second, from the makers' data sheets, dense."""

    bandwidth: float
    float32: float
    tf32: float  # the same as float32 where there are no such units


DEVICES = {
    "H100 SXM": Device(3.35e12, 66.9e12, 494.7e12),
    "A100 SXM 80 GB": Device(2.039e12, 19.5e12, 156e12),
    "T4": Device(320e9, 8.1e12, 8.1e12),
}


class Launch(NamedTuple):
    """One launch: its kernel ("product" for cuBLAS), numbers read and written, operations; for so
    many of the numbers, `columns`, an implicit product would have `images`.
    """

    kernel: str
    numbers: int
    operations: int = 0
    columns: int = 0
    images: int = 0


def trace(model: str) -> list[tuple[str, tuple[Any, ...]]]:
    """The kernels that a forward step in training calls, with their arrays' shapes, one image. What
    has no twin on the GPU calls others there, and so do the references.
    """
    arguments, size = MODELS[model]
    calls: list[tuple[str, tuple[Any, ...]]] = []
    network = models.build(model, **arguments)
    images = mr.tensor(np.random.default_rng(0).standard_normal((1, size, size, 3), np.float32))

    def see(name: str, _: str, *arrays: Any) -> None:
        calls.append((name, tuple(getattr(a, "shape", None) for a in arrays)))

    with reference(), observe(see):
        network(images)
    return calls


def step_launches(
    calls: list[tuple[str, tuple[Any, ...]]], n: int, tf32: bool = False
) -> Iterator[Launch]:
    """The launches of a whole step with n images, as conv_cuda, norm_cuda and pool make them."""
    seen = False  # the first convolution's images need no gradient
    for i, (name, shapes) in enumerate(calls):
        if name == "conv2d":
            z = next(s[0] for later, s in calls[i:] if later == "normalise_batch")
            yield from _convolution(n, shapes[0], shapes[1], z, seen, tf32)
            seen = True
        elif name == "normalise_batch":
            _x, _gamma, _beta, residual, *_running = shapes
            yield from _norm(n * int(np.prod(shapes[0])), residual is not None)
        elif name == "max_pool2d":
            x = n * int(np.prod(shapes[0]))
            y = n * int(np.prod(next(s[0] for later, s in calls[i:] if later == "conv2d")))
            yield Launch("largest", x + 2 * y)
            yield Launch("to_winners", x + 2 * y)


def _convolution(n: int, x: Any, w: Any, z: Any, needs_dx: bool, tf32: bool) -> Iterator[Launch]:
    (_, h, across, c), (r, s, _, k), (_, p, q, _) = x, w, z
    images, outputs, weights = n * int(np.prod(x)), n * p * q * k, r * s * c * k
    columns, operations = n * p * q * r * s * c, 2 * outputs * r * s * c
    ways = (r, s), (-(-h // p), -(-across // q)), (1, 1), np.float32
    fast = not tf32 and pays(n, (p, q), c, k, *ways)
    fast_dx = not tf32 and pays(n, (h, across), k, c, *ways)
    no_columns = (r, s, p) == (1, 1, h)
    sides, read = (images, 0) if no_columns else (columns, columns)
    for winograd, gather in ((fast, "im2col"), (fast_dx, "col2im"), (False, "im2col")):
        if gather == "col2im" and not needs_dx:
            continue
        if winograd:
            yield from _winograd(n * -(-p // 4) * -(-q // 4), images, outputs, c, k)
            continue
        if not no_columns:
            yield Launch(gather, images + columns, columns=images + columns)
        yield Launch("product", sides + weights + outputs, operations, read, images if read else 0)


def _winograd(tiles: int, images: int, outputs: int, c: int, k: int) -> Iterator[Launch]:
    v, windows, m, weights = 36 * tiles * c, 36 * c * k, 36 * tiles * k, 9 * c * k
    spread, ends = v + windows, images + weights + outputs
    yield Launch("winograd_inputs", images + weights + spread, columns=images + weights + spread)
    yield Launch("product", spread + m, 2 * 36 * tiles * c * k, spread + m, ends)
    yield Launch("winograd_outputs", m + outputs, columns=m + outputs)


def _norm(size: int, residual: bool) -> Iterator[Launch]:
    yield Launch("find_moments", size)
    yield Launch("normalise", (2 + residual) * size)
    yield Launch("find_gradients", (4 if residual else 2) * size)
    yield Launch("normalise_gradient", 3 * size)


def updates(sizes: list[int]) -> Iterator[Launch]:
    """The gradients into one buffer, as kernels.collect does it, and the optimiser's step."""
    for i in range(0, len(sizes), PARTS):
        yield Launch("collect", 2 * sum(sizes[i : i + PARTS]))
    yield Launch("sgd", 5 * sum(sizes))


def floor(launch: Launch, device: Device, tf32: bool, ideal: bool = False) -> float:
    """Seconds that a launch takes at the least; `ideal`: without columns."""
    numbers = launch.numbers
    if ideal:
        numbers += launch.images - launch.columns
    peak = device.tf32 if tf32 else device.float32
    return max(NUMBER * numbers / device.bandwidth, launch.operations / peak)


def paper(model: str, n: int) -> dict[str, Any]:
    """The whole table: kernels with their launches, gigabytes, 10⁹ operations and floors in ms."""
    arguments, _ = MODELS[model]
    sizes = [p.size for p in models.build(model, **arguments).parameters()]
    calls = trace(model)
    both = [[*step_launches(calls, n, tf32), *updates(sizes)] for tf32 in (False, True)]
    launches, rows = both[0], []
    for kernel in dict.fromkeys(launch.kernel for launch in launches):
        own, of_tf32 = ([u for u in every if u.kernel == kernel] for every in both)
        row = {
            "kernel": kernel,
            "launches": len(own),
            "gigabytes": sum(NUMBER * launch.numbers for launch in own) / 1e9,
            "giga_operations": sum(launch.operations for launch in own) / 1e9,
        }
        for name, device in DEVICES.items():
            row[name] = [
                1e3 * sum(floor(u, device, tf32) for u in every)
                for tf32, every in ((False, own), (True, of_tf32))
            ]
        rows.append(row)
    totals = {
        name: {
            "floor_ms": [1e3 * sum(floor(u, device, t) for u in both[t]) for t in (False, True)],
            "ideal_ms": [
                1e3 * sum(floor(u, device, t, ideal=True) for u in both[t]) for t in (False, True)
            ],
        }
        for name, device in DEVICES.items()
    }
    most = max(launch.columns for launch in launches if launch.kernel == "product")
    together = max(1, WORKSPACE // (NUMBER * most // n))  # images whose columns fit
    return {
        "model": model,
        "batch": n,
        "kernels": rows,
        "steps": totals,
        "launches": len(launches),
        "chunks_of_the_largest": -(-n // together),
    }


def _measured(batch: int, tiny: bool) -> int:
    try:
        found = device_test(batch, tests=False, tiny=tiny)
    except (RuntimeError, MemoryError) as error:  # without a GPU it says what is missing
        print(f"benchmarks.gpu: {error}{gpu_remedy(error)}", file=sys.stderr)
        return 1
    print(json.dumps(found, indent=1))
    return 0 if found["passed"] else 1


def main(arguments: Sequence[str] | None = None) -> int:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--model", choices=MODELS, default="resnet18")
    parser.add_argument("--paper", action="store_true", help="no GPU is needed")
    parser.add_argument("--batch", type=int, help="default: 128 on paper, else 64")
    parser.add_argument("--json", action="store_true", help="also of what is on paper")
    parser.add_argument("--tiny", action="store_true", help="only show that everything runs")
    options = parser.parse_args(arguments)
    batch = options.batch or (128 if options.paper else 64)
    if batch < 1 or options.batch == 0:
        parser.error(f"--batch is {options.batch} but must be at least 1")
    if not options.paper:
        return _measured(batch, options.tiny)
    found = paper(options.model, batch)
    if options.json:
        print(json.dumps(found, indent=1))
        return 0
    print(f"{found['model']}, batch {found['batch']}: a training step on paper; ms at the least,")
    print("products by float32 units / by TF32 units\n")
    columns = "".join(f"{name:>20}" for name in DEVICES)
    print(f"{'kernel':20}{'launches':>9}{'GB':>8}{'Gop':>8}{columns}")
    for row in found["kernels"]:
        times = "".join(f"{'{:.2f} / {:.2f}'.format(*row[name]):>20}" for name in DEVICES)
        print(
            f"{row['kernel']:20}{row['launches']:9}{row['gigabytes']:8.2f}"
            f"{row['giga_operations']:8.0f}{times}"
        )
    steps = found["steps"]
    for label, key in (("all", "floor_ms"), ("ideal: no columns", "ideal_ms")):
        times = "".join(f"{'{:.2f} / {:.2f}'.format(*steps[name][key]):>20}" for name in DEVICES)
        print(f"{label:45}{times}")
    shares = [[i / f for i, f in zip(s["ideal_ms"], s["floor_ms"])] for s in steps.values()]
    times = "".join(f"{'{:.0%} / {:.0%}'.format(*share):>20}" for share in shares)
    print(f"{'share of the ideal speed, at most':45}{times}\n")
    print(f"{found['launches']} launches where the columns of each layer fit into one chunk; those")
    print(f"of the largest take {found['chunks_of_the_largest']} of {WORKSPACE >> 20} MiB.")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
