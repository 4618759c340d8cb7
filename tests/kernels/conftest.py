"""Kernels are tested at every size, compiled or not."""

from __future__ import annotations

import math

import pytest

from minires.kernels import dispatch

__all__: list[str] = []


@pytest.fixture(autouse=True)
def every_size(monkeypatch: pytest.MonkeyPatch) -> None:
    """The twins also run on large arrays where Numba is switched off."""
    monkeypatch.setattr(dispatch, "UNCOMPILED", math.inf)
