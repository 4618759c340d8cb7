"""The tests that every operation and every kernel gets from its cases, without writing any more.

Gradients against numerical derivatives, float32 kept, fast twins against references, inputs that
are not contiguous, batches of one. An operation or a kernel without a case fails here.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Iterator
from copy import deepcopy
from typing import Any

import numpy as np
import pytest

import minires.functional as F
import minires.kernels
from minires.checking.ops import case_arrays, check_case, op_cases
from minires.kernels.cases import Case
from minires.kernels.dispatch import KERNELS, Kernel, ran, reference
from minires.kernels.isa import ISA
from minires.kernels.memory import set_threads, threads
from minires.op import OPS, Op
from minires.tensor import Tensor
from tests.tolerances import FLOAT32, FLOAT64

__all__: list[str] = []

for found in pkgutil.iter_modules(minires.kernels.__path__):
    importlib.import_module(f"minires.kernels.{found.name}")

TOLERANCES = {np.float32: FLOAT32, np.float64: FLOAT64}
OP_CASES = [pytest.param(op, case, id=f"{op.name}({case!r})"[:100]) for op, case in op_cases()]
KERNEL_CASES = [
    pytest.param(kernel, case, id=f"{name}({case!r})"[:100])
    for name, kernel in KERNELS.items()
    for case in kernel.cases
]
BATCHED = {"x", "logits", "target", "residual"}  # inputs whose first axis is the batch
both_dtypes = pytest.mark.parametrize("dtype", TOLERANCES, ids=lambda d: d.__name__)


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """The arrays are tiny; results do not depend on the number of threads (see the kernels)."""
    before = threads()
    set_threads(1)
    yield
    set_threads(before)


def differentiated(case: Case, arrays: list[Any]) -> list[bool]:
    """Which inputs of the case want a gradient."""
    real = [isinstance(a, np.ndarray) and a.dtype.kind == "f" for a in arrays]
    return [r and (case.wrt is None or i in case.wrt) for i, r in enumerate(real)]


def call(backward: Any, g: Any, needs: tuple[bool, ...]) -> tuple[Any, ...]:
    """What a backward closure returns where nobody else has sent a gradient."""
    more = (needs, lambda position: None)
    return backward(g, *more[: backward.__code__.co_argcount - 1])


def results(op: Op, case: Case, arrays: list[Any], g: np.ndarray | None = None) -> list[Any]:
    """The output and the gradients, from the bare function: no engine that would cast them."""
    y, backward = op.function(*arrays, **case.params)
    y = y[0] if isinstance(y, tuple) else y
    needs = tuple(differentiated(case, arrays))
    if g is None:
        g = np.random.default_rng(1).standard_normal(np.shape(y)).astype(y.dtype)
    grads = call(backward, g, needs)
    assert len(grads) == len(arrays)
    return [np.asarray(y), *(dx for dx, needed in zip(grads, needs, strict=True) if needed)]


def assert_close(found: Any, expected: Any, dtype: Any) -> None:
    """Arrays, numbers, None and tuples of these, by relative RMS error; integers exactly."""
    if isinstance(expected, tuple | list):
        assert len(found) == len(expected)
        for f, e in zip(found, expected, strict=True):
            assert_close(f, e, dtype)
    elif expected is None:
        assert found is None
    else:
        found, expected = np.asarray(found), np.asarray(expected)
        assert (found.shape, found.dtype) == (expected.shape, expected.dtype)
        if expected.dtype.kind != "f":
            np.testing.assert_array_equal(found, expected)
        else:
            wide = expected.astype(np.float64)
            error, size = np.linalg.norm(found - wide), np.linalg.norm(wide)
            assert error <= TOLERANCES[dtype] * size


def scattered(x: Any) -> Any:
    """The same values in an array that is contiguous in no order."""
    if not isinstance(x, np.ndarray) or not x.ndim:
        return x
    stored = np.zeros(tuple(2 * n for n in x.shape[::-1]), x.dtype)
    view = stored[tuple(slice(None, None, 2) for _ in x.shape)].transpose()
    view[...] = x
    return view


def test_everything_has_a_case():
    assert not [op.name for op in OPS.values() if not op.cases]
    assert not [kernel.name for kernel in KERNELS.values() if not kernel.cases]
    public = {name for name in F.__all__ if name in OPS}
    assert set(OPS) == public, "an operation is missing in functional.__all__"


@pytest.mark.parametrize(("op", "case"), OP_CASES)
def test_gradient(op: Op, case: Case):
    report = check_case(op, case)
    assert report.checked
    assert not report.kinks, "a case sits on a kink; away_from and distinct make inputs that do not"


@pytest.mark.parametrize(("op", "case"), OP_CASES)
def test_float32_stays_float32(op: Op, case: Case):
    if op.name == "astype":
        pytest.skip("its purpose is another dtype")
    for a in results(op, case, case_arrays(case, np.float32)):
        assert a.dtype == np.float32
        assert np.isfinite(a).all()


@both_dtypes
@pytest.mark.parametrize(("op", "case"), OP_CASES)
def test_fast_twins_agree_with_references(op: Op, case: Case, dtype: Any):
    arrays = case_arrays(case, dtype)
    with reference(), ran() as slow:
        expected = results(op, case, deepcopy(arrays))
    with ran() as fast:
        found = results(op, case, deepcopy(arrays))
    assert {which for _, which in slow} <= {"reference"}
    assert {name for name, _ in fast} <= {name for name, _ in slow}, "a twin calls another kernel"
    assert_close(found, expected, dtype)


@pytest.mark.parametrize(("op", "case"), OP_CASES)
def test_inputs_need_not_be_contiguous(op: Op, case: Case):
    arrays = case_arrays(case)
    expected = results(op, case, arrays)
    g = scattered(np.random.default_rng(1).standard_normal(expected[0].shape))
    assert_close(results(op, case, [scattered(a) for a in arrays], g), expected, np.float64)


@pytest.mark.parametrize(
    ("op", "case"),
    [p for p in OP_CASES if p.values[0].arrays and np.ndim(case_arrays(p.values[1])[0]) == 4],
)
def test_batch_of_one(op: Op, case: Case):
    arrays = case_arrays(case)
    named = zip(op.arrays, arrays, strict=False)
    first = [a[:1] if name in BATCHED and a is not None else a for name, a in named]
    if "shape" in case.params or "index" in case.params:
        pytest.skip("its parameters hold the batch size")
    single = Case(*(lambda rng, dtype, a=a: a for a in first), wrt=case.wrt, **case.params)
    assert check_case(op, single)


@pytest.mark.parametrize(("op", "case"), OP_CASES)
def test_inputs_and_upstream_are_left_alone(op: Op, case: Case):
    arrays = case_arrays(case)
    before = deepcopy(arrays)
    tensors = [
        Tensor(a, requires_grad=wanted) if wanted else a
        for a, wanted in zip(arrays, differentiated(case, arrays), strict=True)
    ]
    y = op(*tensors, **case.params)
    upstream = np.ones(y.shape, y.dtype)
    kept = y.numpy().copy()
    y.backward(upstream)
    np.testing.assert_array_equal(upstream, 1)
    np.testing.assert_array_equal(y.numpy(), kept)
    for a, b in zip(arrays, before, strict=True):
        np.testing.assert_array_equal(a, b) if isinstance(b, np.ndarray) else None


@both_dtypes
@pytest.mark.parametrize(("kernel", "case"), KERNEL_CASES)
def test_kernel_twin_agrees_with_its_reference(kernel: Kernel, case: Case, dtype: Any):
    arrays = case_arrays(case, dtype)
    outcomes = []
    for context in (reference(), None):
        given = deepcopy(arrays)  # a kernel may write into its arguments
        if context is None:
            with ran() as log:
                outcomes.append((kernel(*given, **case.params), given))
            assert log[0] == (kernel.name, kernel.choose(*given, **case.params)[0])
        else:
            with context:
                outcomes.append((kernel(*given, **case.params), given))
    (expected, written), (found, also_written) = outcomes
    assert_close(found, expected, dtype)
    assert_close(also_written, written, dtype)


@pytest.mark.parametrize("kernel", [k for k in KERNELS.values() if "cpu" in k.twins], ids=str)
def test_kernel_twin_serves_most_cases(kernel: Kernel):
    """Cases that only the reference takes are the exception, or the twin would go untested."""
    served = [
        kernel.choose(*case_arrays(case, dtype), **case.params)[0] == "cpu"
        for case in kernel.cases
        for dtype in TOLERANCES
    ]
    if not ISA.width and not any(served):
        pytest.skip("its twin is written in vectors, which plain code does not have")
    assert np.mean(served) >= 0.5
