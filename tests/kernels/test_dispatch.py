"""Which implementation a call gets, and how that is seen and forced."""

from __future__ import annotations

import numba
import numpy as np

from minires.kernels import dispatch
from minires.kernels.cases import Case
from minires.kernels.dispatch import KERNELS, array_module, kernel, observe, ran, reference

__all__: list[str] = []


def make_kernel():
    @kernel(Case((3,)))
    def doubled(x):
        """Twice x."""
        return 2 * x

    @doubled.cpu(serves=lambda x: x.dtype == np.float32)
    def _doubled_cpu(x):
        return x + x

    del KERNELS["doubled"]
    return doubled


def test_a_twin_runs_where_it_serves():
    doubled = make_kernel()
    with ran() as log:
        assert doubled(np.ones(2, np.float32)).tolist() == [2, 2]
        assert doubled(np.ones(2)).tolist() == [2, 2]
    assert log == [("doubled", "cpu"), ("doubled", "reference")]


def test_reference_is_forced_inside_the_block_only():
    doubled = make_kernel()
    x = np.ones(2, np.float32)
    with ran() as log:
        with reference():
            doubled(x)
        doubled(x)
    assert [which for _, which in log] == ["reference", "cpu"]
    doubled(x)
    assert len(log) == 2  # nothing is recorded outside


def test_without_the_compiler_twins_serve_small_arrays(monkeypatch):
    doubled = make_kernel()
    monkeypatch.setattr(dispatch, "UNCOMPILED", 10)
    for off, expected in ((0, ["cpu", "cpu"]), (1, ["cpu", "reference"])):
        monkeypatch.setattr(numba.config, "DISABLE_JIT", off)
        with ran() as log:
            doubled(np.ones(10, np.float32))
            doubled(np.ones(11, np.float32))
        assert [which for _, which in log] == expected


def test_an_observer_sees_the_arguments():
    doubled, seen = make_kernel(), []
    with observe(lambda *call: seen.append(call)):
        doubled(np.float64(3))
    doubled(np.float64(4))
    assert seen == [("doubled", "reference", 3)]


def test_a_kernel_keeps_its_name_docstring_and_cases():
    doubled = make_kernel()
    assert (doubled.name, doubled.__doc__) == ("doubled", "Twice x.")
    assert [repr(c) for c in doubled.cases] == ["(3,)"]
    assert repr(doubled) == "<kernel doubled: reference, cpu>"


def test_array_module_of_arrays_and_scalars():
    assert array_module(np.ones(2)) is np
    assert array_module(np.float32(1)) is np
