"""Fixtures of the GPU tests."""

from __future__ import annotations

import sys
from types import ModuleType

import pytest

from tests.gpu import device

__all__: list[str] = []


@pytest.fixture(scope="session")
def cupy() -> ModuleType:
    """CuPy on a GPU, or on the stand-in device; the test is skipped where there is neither."""
    if device.installed():
        return sys.modules["cupy"]
    if device.real_gpu():
        return pytest.importorskip("cupy")
    pytest.skip(device.missing() or "needs `pytest -m gpu`")


@pytest.fixture
def standin(cupy: ModuleType) -> ModuleType:
    """`tests.gpu.device`; the test is skipped on a real GPU, which counts and forbids nothing."""
    if not device.installed():
        pytest.skip("about the stand-in device; this is a GPU")
    return device
