"""The launcher on the emulator: CUDA twins run on NumPy arrays, through the launches they make."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from tests.gpu import emulator

__all__ = ["Emulated", "sanitizer_reports"]


class Emulated:
    """Where kernels run, in place of `kernels.launch.CuPy`. order: the seed of a random order of
    blocks and threads, 0 for the plain one; device: the number of the GPU it is taken for.
    """

    def __init__(self, order: int = 0, device: int = 0) -> None:
        self.order, self.device = order, device
        self.launches: list[str] = []

    def build(self, text: str, names: Iterable[str]) -> Any:
        """A module of the emulator."""
        return _Module(emulator.Module(text, names), self)

    def device_of(self, x: Any) -> int | None:
        """Every NumPy array is on this GPU."""
        return self.device if isinstance(x, np.ndarray) else None

    def current_device(self) -> int:
        """The only one."""
        return 0


class _Module:
    def __init__(self, module: emulator.Module, platform: Emulated) -> None:
        self.module, self.platform = module, platform

    def get_function(self, name: str) -> Any:
        def launch(grid: tuple[int, ...], block: tuple[int, ...], args: tuple[Any, ...]) -> None:
            self.platform.launches.append(name)
            self.module.launch(name, grid, block, args, order=self.platform.order)

        return launch


def sanitizer_reports(flavour: str, *tests: str) -> list[str]:
    """What the sanitizers "asan" or "tsan" find while pytest runs `tests`, which must pass."""
    child = emulator.sanitized(
        flavour, *("-m", "pytest", "-q", "-m", "gpu", "-p", "no:cacheprovider"), *tests, timeout=580
    )
    found = emulator.reports(child)
    assert found or child.returncode == 0, child.stdout[-3000:] + child.stderr[-3000:]
    return found
