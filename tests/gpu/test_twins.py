"""Every kernel with arrays of CuPy, on a GPU or on the stand-in device: the twin is chosen, it
agrees with the reference on the CPU, and it neither waits for the GPU nor copies from it."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import numpy as np
import pytest

from minires.checking.ops import case_arrays
from minires.kernels.cases import Case
from minires.kernels.dispatch import KERNELS, Kernel, ran
from minires.kernels.optim import adam_step, sgd_step
from tests.gpu import device
from tests.test_ops import assert_close, both_dtypes

__all__: list[str] = []

pytestmark = pytest.mark.gpu

CASES = [
    pytest.param(kernel, case, id=f"{name}({case!r})"[:100])
    for name, kernel in KERNELS.items()
    for case in kernel.cases
    if "cuda" in kernel.twins
]


def to_host(x: Any) -> Any:
    """Arrays of CuPy, and tuples of them, as NumPy's."""
    if isinstance(x, tuple | list):
        return type(x)(map(to_host, x))
    return x.get() if hasattr(x, "get") else x


@both_dtypes
@pytest.mark.parametrize(("kernel", "case"), CASES)
def test_cupy_arrays_get_the_twin(kernel: Kernel, case: Case, dtype: Any, cupy: Any):
    host = case_arrays(case, dtype)
    on_gpu = [cupy.asarray(a) if isinstance(a, np.ndarray) else a for a in host]
    strict = device.installed() and device.forbidden("synchronise", "copy_to_host")
    with strict or nullcontext(), ran() as log:
        found = kernel(*on_gpu, **case.params)
    assert log == [(kernel.name, "cuda")]
    assert_close(to_host(found), kernel.reference(*host, **case.params), dtype)
    assert_close(to_host(on_gpu), host, dtype)


def test_a_step_sees_what_the_gpu_holds_by_then(cupy: Any, rng: np.random.Generator):
    """The same call with the same arguments: what changed is in the GPU's memory."""
    host = [rng.standard_normal(700).astype(np.float32) for _ in range(3)] + [np.ones(700, "f4")]
    w, g, m, v = map(cupy.asarray, host)
    lr, step = cupy.asarray(0.0), cupy.asarray(0)
    sgd = {"momentum": 0.9, "dampening": 0, "nesterov": False, "weight_decay": 0, "first": False}
    adam = {"beta1": 0.9, "beta2": 0.99, "eps": 1e-8, "weight_decay": 0.1, "decoupled": False}
    for number, rate in enumerate((0.1, 0.03), start=1):
        lr.fill(rate)
        step.fill(number)
        sgd_step(w, g, m, lr=lr, **sgd)
        adam_step(w, g, m, v, lr=lr, step=step, **adam)
        sgd_step.reference(*host[:3], lr=rate, **sgd)
        adam_step.reference(*host, lr=rate, step=number, **adam)
    assert_close([a.get() for a in (w, m, v)], [host[0], *host[2:]], np.float32)
