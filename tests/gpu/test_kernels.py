"""Every CUDA twin against its reference, in the emulator: all sample calls of the registry, float32
and float64, in a random order of blocks and threads.

The emulator begins shared memory as NaN and puts marks around arrays; outputs begin as NaN, too.
"""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import pytest

from minires.checking.ops import case_arrays
from minires.kernels import launch
from minires.kernels.cases import Case
from minires.kernels.dispatch import KERNELS, Kernel
from tests.gpu import emulator
from tests.gpu.emulated import Emulated, sanitizer_reports
from tests.test_ops import assert_close, both_dtypes

__all__: list[str] = []

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not emulator.available(), reason="needs g++"),
]

CASES = [
    pytest.param(kernel, case, id=f"{name}({case!r})"[:100])
    for name, kernel in KERNELS.items()
    for case in kernel.cases
    if "cuda" in kernel.twins
]
HERE = "tests/gpu/test_kernels.py"


@pytest.fixture
def platform(monkeypatch: pytest.MonkeyPatch) -> Emulated:
    """Launches go to the emulator."""
    emulated = Emulated(order=7)
    monkeypatch.setattr(launch, "platform", emulated)
    return emulated


@both_dtypes
@pytest.mark.parametrize(("kernel", "case"), CASES)
def test_twin_matches_reference(kernel: Kernel, case: Case, dtype: Any, platform: Emulated):
    """The same outputs, and the same written into the arguments."""
    twin, serves = kernel.twins["cuda"]
    given = case_arrays(case, dtype)
    others = deepcopy(given)
    assert serves(*given, **case.params)
    found, expected = twin(*given, **case.params), kernel.reference(*others, **case.params)
    assert_close(found, expected, dtype)
    assert_close(given, others, dtype)
    assert platform.launches or "conv2d" in kernel.name  # a 1x1 window needs only a product


def test_what_has_no_twin():
    """One launch of CuPy's, a number that has to be read, or nothing but other kernels."""
    without = {name for name, kernel in KERNELS.items() if "cuda" not in kernel.twins}
    assert without == {"add_to", "conv_norm", "conv_norm_gradient", "squared_norm", "write_part"}


@pytest.mark.slow
@pytest.mark.parametrize("flavour", ["asan", "tsan"])
def test_sanitizers_find_nothing(flavour: str):
    """All of the sample calls again, in a child under each sanitizer."""
    chosen = f"{HERE}::test_twin_matches_reference"
    assert sanitizer_reports(flavour, chosen) == []
