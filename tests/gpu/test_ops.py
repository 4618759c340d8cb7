"""Every operation and every kernel computes on the device what its reference computes on the CPU:
outputs and gradients, from the cases of the registries, in float32 and float64.
"""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import numpy as np
import pytest

from minires.checking.ops import case_arrays
from minires.kernels.cases import Case
from minires.kernels.dispatch import Kernel, ran, reference
from minires.op import Op
from tests.test_ops import (
    KERNEL_CASES,
    OP_CASES,
    assert_close,
    both_dtypes,
    call,
    differentiated,
    scattered,
)

__all__: list[str] = []

pytestmark = pytest.mark.gpu


def moved(cupy: Any, value: Any) -> Any:
    """Arrays on the device, also inside lists; the rest as it is."""
    if isinstance(value, list | tuple):
        return [moved(cupy, item) for item in value]
    return cupy.asarray(value) if isinstance(value, np.ndarray) else value


def fetched(value: Any) -> Any:
    """The same back on the host; a NumPy array was never on the device."""
    if isinstance(value, list | tuple):
        return [fetched(item) for item in value]
    assert not isinstance(value, np.ndarray | np.generic), "the result is on the host"
    return value.get() if hasattr(value, "get") else value


def results(op: Op, case: Case, arrays: list[Any], g: Any, needs: tuple[bool, ...]) -> list[Any]:
    """The output and the gradients of the bare function."""
    y, backward = op.function(*arrays, **case.params)
    y = y[0] if isinstance(y, tuple) else y
    grads = call(backward, g, needs)
    return [y, *(dx for dx, needed in zip(grads, needs, strict=True) if needed)]


@both_dtypes
@pytest.mark.parametrize(("op", "case"), OP_CASES)
def test_operation(cupy: Any, op: Op, case: Case, dtype: Any):
    arrays = case_arrays(case, dtype)
    needs = tuple(differentiated(case, arrays))
    with reference():
        y = op.function(*deepcopy(arrays), **case.params)[0]
        y = np.asarray(y[0] if isinstance(y, tuple) else y)
        g = np.random.default_rng(1).standard_normal(y.shape).astype(y.dtype)
        expected = results(op, case, deepcopy(arrays), g, needs)
    for change in (lambda a: a, scattered):
        given = [moved(cupy, change(a)) for a in deepcopy(arrays)]
        found = results(op, case, given, moved(cupy, change(g)), needs)
        assert_close(fetched(found), [np.asarray(e) for e in expected], dtype)


@both_dtypes
@pytest.mark.parametrize(("kernel", "case"), KERNEL_CASES)
def test_kernel(cupy: Any, kernel: Kernel, case: Case, dtype: Any):
    arrays = case_arrays(case, dtype)
    expected_written, written = deepcopy(arrays), moved(cupy, deepcopy(arrays))
    with reference():
        expected = kernel(*expected_written, **case.params)
    with ran() as log:
        found = kernel(*written, **case.params)
    assert log[0][1] in ("reference", "cuda")
    assert_close(fetched(found), expected, dtype)
    assert_close(fetched(written), expected_written, dtype)
