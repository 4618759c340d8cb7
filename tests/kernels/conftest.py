"""Kernels are tested at every size, compiled or not, and with marks around what they allocate."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from minires.kernels import dispatch
from minires.kernels.simd import LINE

__all__ = ["Guards"]


@pytest.fixture(autouse=True)
def every_size(monkeypatch: pytest.MonkeyPatch) -> None:
    """The twins also run on large arrays where Numba is switched off."""
    monkeypatch.setattr(dispatch, "UNCOMPILED", math.inf)


class Guards:
    """Surrounds the arrays and workspaces that kernel modules allocate with marks."""

    SIZE, MARK = 256, np.float32(1e30)  # numbers on each side

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._monkeypatch = monkeypatch
        self.wholes: list[np.ndarray] = []

    def surround(self, *modules: ModuleType) -> None:
        """Let the modules allocate here, until the test ends."""
        for module in modules:
            self._monkeypatch.setattr(module, "empty", self._empty)
            self._monkeypatch.setattr(module, "workspace", self._workspace)

    def check(self) -> None:
        """Something was allocated, and no mark was overwritten."""
        assert self.wholes
        for whole in self.wholes:
            ends = np.concatenate([whole[: self.SIZE], whole[-self.SIZE :]])
            assert (ends == self.MARK).all()

    def _empty(self, size: tuple[int, ...], dtype: Any) -> np.ndarray:
        """Begins with a cache line, as the pool's arrays do."""
        whole = np.full(np.prod(size) + 2 * self.SIZE + LINE, self.MARK, dtype)
        first = -whole.ctypes.data % LINE // whole.itemsize
        whole = whole[first : first + whole.size - LINE]
        self.wholes.append(whole)
        whole[self.SIZE : -self.SIZE] = np.nan
        return whole[self.SIZE : -self.SIZE].reshape(size)

    @contextmanager
    def _workspace(self, size: tuple[int, ...], dtype: Any) -> Iterator[np.ndarray]:
        yield self._empty(size, dtype)


@pytest.fixture
def guards(monkeypatch: pytest.MonkeyPatch) -> Guards:
    return Guards(monkeypatch)
