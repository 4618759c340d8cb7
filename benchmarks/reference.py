"""minires against PyTorch: every op, ResNet-20's first training steps, whole networks.

    python -m benchmarks.reference [--json] [NAME ...]

What PyTorch computed is stored in tests/reference/*.npz beside the scripts that made it; inputs and
weights are a pure function of names and indices. Errors are relative RMS, except that losses are
compared one by one. Ends with status 1 when something is out of bounds.
"""

from __future__ import annotations

import argparse
import json
import operator
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

import minires as mr
import minires.functional as F
from minires import models, nn, optim
from tests import tolerances
from tests.reference import networks, pure, training
from tests.reference.calls import OpCase, upstream
from tests.reference.cases import CASES
from tests.reference.store import Reference

__all__ = ["Row", "main", "network_rows", "op_rows", "training_rows"]


@dataclass(frozen=True)
class Row:
    """One line of the table. An error is None where that precision is not compared."""

    name: str
    case: str
    float64: float | None
    float32: float | None
    bound64: float = tolerances.FLOAT64
    bound32: float = tolerances.FLOAT32
    note: str = ""

    @property
    def ok(self) -> bool:
        inside = (self.float64 or 0) <= self.bound64 and (self.float32 or 0) <= self.bound32
        return inside and not self.note  # a NaN is not inside

    def __str__(self) -> str:
        errors = [f"{e:9.1e}" if e is not None else 9 * " " for e in (self.float64, self.float32)]
        verdict = "ok" if self.ok else "OUT"
        bounds = f"{self.bound64:.0e} / {self.bound32:.0e}"
        return (
            f"{verdict:4}{errors[0]} {errors[1]}  {bounds}  {self.name:18} {self.case} {self.note}"
        )


# Ops

CALLS: dict[str, Callable[..., Any]] = {
    "add": operator.add,
    "sub": operator.sub,
    "mul": operator.mul,
    "div": operator.truediv,
    "neg": operator.neg,
    "matmul": operator.matmul,
    "pow": lambda x, exponent: x**exponent,
    "getitem": lambda x, index: x[tuple(list(i) if isinstance(i, tuple) else i for i in index)],
}


def _tensors(value: Any, dtype: Any) -> Any:
    """A float array as a tensor that wants a gradient; other values as they are, lists by part."""
    if isinstance(value, list):
        return [_tensors(one, dtype) for one in value]
    if isinstance(value, np.ndarray) and value.dtype == np.float64:
        return mr.tensor(value.astype(dtype), requires_grad=True)
    return value


def _cast(value: Any, dtype: Any) -> Any:
    if isinstance(value, tuple):
        return tuple(_cast(one, dtype) for one in value)
    return value.astype(dtype) if isinstance(value, np.ndarray) else value


def _run(case: OpCase, dtype: Any) -> dict[str, np.ndarray]:
    """{"out", "d0", "d0.1", "mean", "var"}, as the script that asked PyTorch names them."""
    inputs = _tensors(case.arrays(), dtype)
    params = {k: _cast(v, dtype) if k in ("running", "weight") else v
              for k, v in case.parameters().items()}  # fmt: skip
    arguments = inputs
    if case.op == "where":
        condition = pure.uniform(f"{case.key}.condition", case.inputs[0].shape) > 0
        arguments = [condition, *inputs]
    out = (CALLS.get(case.op) or getattr(F, case.op))(*arguments, **params)
    out.backward(upstream(case, out.shape).astype(dtype))
    found = {"out": out.numpy()}
    for i, x in enumerate(inputs):
        if isinstance(x, list):
            found |= {f"d{i}.{j}": one.grad for j, one in enumerate(x)}
        elif isinstance(x, mr.Tensor):
            found[f"d{i}"] = x.grad
    if case.params.get("training") and out.aux is not None:
        found |= dict(zip(("mean", "var"), out.aux, strict=True))
    return found


def _error(found: dict[str, np.ndarray], stored: Reference, key: str, dtype: Any) -> float:
    """The largest error of a case's arrays; raises ValueError where a shape or a dtype differs."""
    expected = {k.rsplit("/", 1)[1]: k for k in stored if k.startswith(f"{key}/")}
    if set(expected) != set(found):
        raise ValueError(f"gave {sorted(found)}, stored are {sorted(expected)}")
    errors = []
    for name, full in expected.items():
        got = np.asarray(found[name])
        typed = got.dtype == dtype or name in ("mean", "var")  # statistics are always float64
        if got.shape != stored.shapes[full] or not typed:
            raise ValueError(
                f"{name} is {got.dtype} {got.shape}, expected {dtype} {stored.shapes[full]}"
            )
        errors.append(pure.relative_rms(pure.sketch(got, **stored.sizes), stored[full]))
    return float(np.max(errors))


def _both(compute: Callable[[Any], float]) -> tuple[float, float, str]:
    """The float64 and the float32 error, and what was raised instead."""
    errors, note = [], ""
    for dtype in (np.dtype(np.float64), np.dtype(np.float32)):
        try:
            errors.append(compute(dtype))
        except Exception as error:  # one broken op must not hide the others
            errors.append(float("nan"))
            note = f"{type(error).__name__}: {error}"
    return errors[0], errors[1], note


def op_rows(names: Sequence[str] = ()) -> Iterator[Row]:
    """A row for every case of the named ops, or of all."""
    stored = Reference("ops")
    for case in CASES:
        if not names or case.op in names:
            e64, e32, note = _both(lambda d, c=case: _error(_run(c, d), stored, c.key, d))
            yield Row(case.op, f"({case.label})", e64, e32, note=note)


# Training


def _lowered(value: Any) -> Any:
    """A copy of (nested) state with float32 arrays."""
    if isinstance(value, dict):
        return {k: _lowered(v) for k, v in value.items()}
    if isinstance(value, list):
        return [_lowered(v) for v in value]
    floats = isinstance(value, np.ndarray) and value.dtype == np.float64
    return value.astype(np.float32) if floats else value


def _loss(model: nn.Module, step: int, dtype: Any) -> mr.Tensor:
    images, labels = training.batch(step)
    return F.cross_entropy(model(mr.tensor(images.astype(dtype))), labels)


def _train_step(model: nn.Module, opt: optim.SGD, step: int, dtype: Any) -> float:
    opt.zero_grad()
    loss = _loss(model, step, dtype)
    loss.backward()
    opt.step()
    return float(loss.item())


def _float32_step(model: nn.Module, opt: optim.SGD, step: int) -> tuple[float, float]:
    """The losses of one step from this state cast down: before it, and on its batch after it."""
    low = _blank("resnet20").train()
    low.load_state_dict(_lowered(model.state_dict()))
    low_opt = optim.SGD(low.parameters(), **training.RECIPE)
    low_opt.load_state_dict(_lowered(opt.state_dict()))
    before = _train_step(low, low_opt, step, np.float32)
    with mr.no_grad():
        return before, float(_loss(low, step, np.float32).item())


def _blank(name: str, **arguments: Any) -> nn.Module:
    """A model whose weights are about to be loaded."""
    with nn.init.skip():
        return getattr(models, name)(**arguments)


def _pure(model: nn.Module) -> nn.Module:
    """The model in float64 with its pure weights and statistics."""
    model = model.to(np.float64)
    shapes = {name: np.shape(a) for name, a in model.state_dict().items()}
    model.load_state_dict(pure.state(shapes))
    return model


def _state_error(model: nn.Module, opt: optim.SGD, stored: Reference, when: str) -> float:
    """The largest error of any parameter, momentum buffer or running statistic."""
    found = {f"{when}/{name}": a for name, a in model.state_dict().items()}
    names = [name for name, _ in model.named_parameters()]
    for name, entry in zip(names, opt.state_dict()["state"], strict=True):
        found[f"{when}/momentum.{name}"] = entry["momentum_buffer"]
    errors = [
        pure.relative_rms(pure.sketch(found[key], **stored.sizes), expected)
        for key, expected in stored.items()
        if key.startswith(f"{when}/")
    ]
    return float(np.max(errors))


def training_rows() -> Iterator[Row]:
    """ResNet-20's first steps: the losses one by one, and the whole state after some of them."""
    stored = Reference("training")
    bound = tolerances.TRAJECTORY64
    model = _pure(_blank("resnet20")).train()
    opt = optim.SGD(model.parameters(), **training.RECIPE)
    for step in range(training.STEPS):
        before, after = _float32_step(model, opt, step)
        loss = _train_step(model, opt, step, np.float64)
        errors = [
            abs(got / stored[name][step] - 1)
            for name, got in (("losses", loss), ("before32", before), ("after32", after))
        ]
        yield Row("training", f"loss of step {step}", errors[0], errors[1], bound64=bound)
        yield Row("training", f"loss after a float32 step {step}", None, errors[2], bound64=bound,
                  bound32=tolerances.AFTER_STEP32)  # fmt: skip
        when = f"after step {step}"
        if any(key.startswith(f"{when}/") for key in stored):
            error = _state_error(model, opt, stored, when)
            yield Row("training", f"state {when}", error, None, bound64=bound)


# Networks


def network_rows(names: Sequence[str] = ()) -> Iterator[Row]:
    """The logits of whole networks in evaluation mode."""
    stored = Reference("networks")
    for name, arguments, size in networks.NETWORKS:
        if names and name not in names:
            continue
        label = networks.label(name, arguments, size)
        model = _pure(_blank(name, **arguments)).eval()

        def error(dtype: Any, model=model, label=label, size=size) -> float:
            x = mr.tensor(networks.images(size).astype(dtype))
            with mr.no_grad():
                return pure.relative_rms(model.to(dtype)(x).numpy().reshape(-1), stored[label])

        e64, e32, note = _both(error)
        yield Row("network", label, e64, e32, note=note)


# The table


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the table; 0 when every row is inside its bounds, else 1."""
    parser = argparse.ArgumentParser(
        prog="benchmarks.reference", description="Compare with PyTorch."
    )
    parser.add_argument("names", nargs="*", help="ops, 'training', 'network'; all by default")
    parser.add_argument("--json", action="store_true", help="one JSON object instead of the table")
    options = parser.parse_args(arguments)
    asked = set(options.names)
    ops = sorted(asked - {"training", "network"})
    parts = [op_rows(ops)] if ops or not asked else []
    parts += [training_rows()] if not asked or "training" in asked else []
    parts += [network_rows()] if not asked or "network" in asked else []
    if not options.json:
        print("    float64   float32    bounds         what               case")
    rows = []
    for row in (row for part in parts for row in part):
        rows.append(row)
        if not options.json:
            print(row, flush=True)
    bad = [row for row in rows if not row.ok]
    if options.json:
        print(json.dumps({"ok": not bad, "rows": [asdict(row) | {"ok": row.ok} for row in rows]}))
    else:
        print(f"{len(rows)} rows, {len(bad)} out of bounds; against {Reference('ops').made_by}")
    return 1 if bad or not rows else 0


if __name__ == "__main__":
    sys.exit(main())
