"""Every operation and kernel on the GPU against its reference on the CPU, on its own sample calls:
what an installed package can check without the tests of a checkout."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from copy import deepcopy
from typing import Any, NamedTuple

import numpy as np

from ..backend import is_array, to_device
from ..checking.ops import case_arrays, op_cases
from ..kernels.cases import Case
from ..kernels.dispatch import KERNELS, reference

__all__ = ["BOUNDS", "Sample", "compare_samples"]

# relative RMS: a few thousand roundings
BOUNDS = {"float32": 1e-5, "float64": 1e-12}


class Sample(NamedTuple):
    """One comparison; error: the largest relative RMS error of what came out, infinite where the
    shapes or types differ, NaN where numbers do."""

    name: str
    dtype: str
    error: float

    @property
    def passed(self) -> bool:
        """Whether the error is one of rounding."""
        return self.error <= BOUNDS[self.dtype]


def compare_samples() -> Iterator[Sample]:
    """Compute all of them on the GPU, one by one."""
    for dtype in BOUNDS:
        for op, case in op_cases():
            yield Sample(f"{op.name}({case!r})", dtype, _error(_op_results(op), case, dtype))
        for name, kernel in list(KERNELS.items()):
            for case in kernel.cases:
                error = _error(_kernel_results(kernel), case, dtype)
                yield Sample(f"kernel {name}({case!r})", dtype, error)


def _error(results: Callable[[Case, list[Any]], Any], case: Case, dtype: str) -> float:
    arrays = case_arrays(case, dtype)
    with reference():
        expected = results(case, deepcopy(arrays))
    found = results(case, _moved(arrays, "cuda"))
    return max(map(_distance, _moved(found, "cpu"), expected), default=0.0)


def _moved(value: Any, device: str) -> Any:
    if isinstance(value, list | tuple):
        return [_moved(item, device) for item in value]
    return to_device(value, device) if is_array(value) else value


def _flat(value: Any) -> list[Any]:
    if isinstance(value, list | tuple):
        return [part for item in value for part in _flat(item)]
    return [] if value is None else [value]


def _kernel_results(kernel: Any) -> Callable[[Case, list[Any]], list[Any]]:
    """What a kernel returns, and what it wrote into its arguments."""
    return lambda case, arrays: _flat([kernel(*arrays, **case.params), arrays])


def _op_results(op: Any) -> Callable[[Case, list[Any]], list[Any]]:
    """The output of an operation, and its gradients."""

    def results(case: Case, arrays: list[Any]) -> list[Any]:
        y, backward = op.function(*arrays, **case.params)
        y = y[0] if isinstance(y, tuple) else y
        real = [is_array(a) and a.dtype.kind == "f" for a in arrays]
        needs = tuple(r and (case.wrt is None or i in case.wrt) for i, r in enumerate(real))
        g = np.random.default_rng(1).standard_normal(np.shape(y)).astype(y.dtype)
        more: tuple[Any, ...] = needs, lambda position: None
        device = "cuda" if is_array(y) and not isinstance(y, np.ndarray) else "cpu"
        grads = backward(to_device(g, device), *more[: backward.__code__.co_argcount - 1])
        return _flat([y, [dx for dx, needed in zip(grads, needs) if needed]])

    return results


def _distance(found: Any, expected: Any) -> float:
    found, expected = np.asarray(found), np.asarray(expected)
    if (found.shape, found.dtype) != (expected.shape, expected.dtype):
        return float("inf")
    if expected.dtype.kind != "f":
        return 0.0 if np.array_equal(found, expected) else float("inf")
    wide = expected.astype(np.float64)
    error, size = float(np.linalg.norm(found - wide)), float(np.linalg.norm(wide))
    return error / size if size else (0.0 if not error else float("inf"))
