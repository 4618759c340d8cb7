"""Modules that hold other modules."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from .module import Module

__all__ = ["Identity", "ModuleList", "Sequential"]


class Identity(Module):
    """Returns its input."""

    def forward(self, x: Any) -> Any:
        """The input itself."""
        return x


class ModuleList(Module):
    """A list of modules, named "0", "1", …; unlike a plain list it makes their parameters known.

    >>> len(ModuleList([Identity(), Identity()]))
    2
    """

    def __init__(self, modules: Iterable[Module] = ()) -> None:
        for module in modules:
            self.append(module)

    def append(self, module: Module) -> None:
        """Add `module` at the end."""
        if not isinstance(module, Module):
            kind = type(module).__name__
            raise TypeError(f"{type(self).__name__}: expected a Module but got {kind}")
        setattr(self, str(len(self)), module)

    def __len__(self) -> int:
        return sum(1 for _ in self.children())

    def __iter__(self) -> Iterator[Any]:
        return self.children()

    def __getitem__(self, index: int) -> Any:
        return list(self.children())[index]


class Sequential(ModuleList):
    """Calls its modules one after the other.

    >>> Sequential(Identity(), Identity())
    Sequential(
      (0): Identity()
      (1): Identity()
    )
    """

    def __init__(self, *modules: Module) -> None:
        super().__init__(modules)

    def forward(self, x: Any) -> Any:
        """The last module's output."""
        for module in self.children():
            x = module(x)
        return x
