"""`Module` and `Parameter`: a network is a tree of objects with what it learns as attributes.

There is no registration machinery: a module's parameters, buffers and children are found by looking
through `vars(self)`, in the order in which they were assigned. Names are the attribute paths, as in
PyTorch: `layer1.0.conv1.weight`.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterator, Mapping
from textwrap import indent
from typing import Any, NamedTuple, TypeVar

import numpy as np

from ..backend import DEVICES, device_of, is_array, resolve_device, to_device
from ..errors import DTypeError
from ..tensor import FLOATS, Tensor

__all__ = ["Module", "Parameter", "StateMismatch"]

OPTIONAL = "num_batches_tracked"  # PyTorch files from before 0.4.1 do not have it
NAMED_IN_ERRORS = 20  # names a kind: another network's list would fill the screen

M = TypeVar("M", bound="Module")


class Parameter(Tensor):
    """A leaf tensor that training changes. `array` (float32 or float64) is used, not copied.

    >>> Parameter(np.zeros(2, np.float32))
    tensor([0., 0.], requires_grad=True)
    """

    __slots__ = ()

    def __init__(self, array: Any, requires_grad: bool = True) -> None:
        super().__init__(array, requires_grad)


class StateMismatch(NamedTuple):
    """How a state dict differs from a module's: names, and (name, given shape, own shape)."""

    missing: list[str]
    unexpected: list[str]
    mismatched: list[tuple[str, tuple[int, ...], tuple[int, ...]]]


class Module:
    """Base of layers and networks: assign parameters and modules to attributes, write `forward`.

    >>> from minires import nn
    >>> class Classifier(nn.Module):
    ...     def __init__(self):
    ...         self.hidden = nn.Linear(784, 64)
    ...         self.out = nn.Linear(64, 10)
    ...
    ...     def forward(self, x):
    ...         return self.out(self.hidden(x).relu())
    >>> [name for name, _ in Classifier().named_parameters()]
    ['hidden.weight', 'hidden.bias', 'out.weight', 'out.bias']
    """

    training: bool = True
    _buffer_names: tuple[str, ...] = ()

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """What calling the module computes."""
        raise NotImplementedError(f"{type(self).__name__} has no forward method")

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.forward(*args, **kwargs)

    # What hangs on it

    def register_buffer(self, name: str, array: Any) -> None:
        """Keep a bare array under `name` that is saved with the parameters but not trained."""
        setattr(self, name, array)
        if name not in self._buffer_names:
            self._buffer_names = (*self._buffer_names, name)

    def named_children(self) -> Iterator[tuple[str, Module]]:
        """(attribute, module) of the modules directly below."""
        return ((name, child) for name, child in vars(self).items() if isinstance(child, Module))

    def children(self) -> Iterator[Module]:
        """The modules directly below."""
        return (child for _, child in self.named_children())

    def named_modules(self) -> Iterator[tuple[str, Module]]:
        """(path, module) of this module ("") and all below, each once, parents first."""
        return _once(self._walk())

    def modules(self) -> Iterator[Module]:
        """This module and all below."""
        return (module for _, module in self.named_modules())

    def named_parameters(self) -> Iterator[tuple[str, Parameter]]:
        """(path, parameter), each once even where modules share it."""
        return _once((name, p) for name, p in self._state() if isinstance(p, Parameter))

    def parameters(self) -> Iterator[Parameter]:
        """All parameters."""
        return (p for _, p in self.named_parameters())

    def named_buffers(self) -> Iterator[tuple[str, Any]]:
        """(path, bare array) of the buffers."""
        return _once((name, b) for name, b in self._state() if not isinstance(b, Parameter))

    def _walk(self, prefix: str = "") -> Iterator[tuple[str, Module]]:
        yield prefix, self
        for name, child in self.named_children():
            yield from child._walk(f"{prefix}.{name}" if prefix else name)

    def _state(self) -> Iterator[tuple[str, Any]]:
        """Every saved (path, Parameter or buffer), in PyTorch's order."""
        for path, module in self._walk():
            own = vars(module)
            names = [name for name, value in own.items() if isinstance(value, Parameter)]
            names += [name for name in module._buffer_names if own.get(name) is not None]
            yield from ((f"{path}.{name}" if path else name, own[name]) for name in names)

    # Saving and loading

    def state_dict(self) -> dict[str, Any]:
        """Copies of all parameters and buffers by path: bare arrays in memory layout."""
        return {name: _bare(value).copy() for name, value in self._state()}

    def compare_state_dict(self, state: Mapping[str, Any]) -> StateMismatch:
        """How `state` differs from `state_dict()` in names and shapes."""
        own = {name: tuple(value.shape) for name, value in self._state()}
        given = {name: tuple(np.shape(_bare(value))) for name, value in state.items()}
        return StateMismatch(
            [n for n in own if n not in given and not n.endswith(OPTIONAL)],
            [n for n in given if n not in own],
            [(n, given[n], own[n]) for n in own if n in given and given[n] != own[n]],
        )

    def load_state_dict(self, state: Mapping[str, Any], strict: bool = True) -> StateMismatch:
        """Copy arrays (memory layout) into the parameters and buffers so named; all or nothing.

        Raises ValueError on a wrong shape and, when `strict`, on missing and unexpected names. The
        arrays of the parameters stay where they are, so an optimiser made before still works.

        >>> from minires import nn
        >>> layer = nn.Linear(2, 3)
        >>> layer.load_state_dict({"weight": np.ones((3, 2)), "bais": np.zeros(3)})
        Traceback (most recent call last):
        ValueError: Linear.load_state_dict: missing: bias (found bais); unexpected: bais; other
        shapes: weight is (3, 2) but must be (2, 3)
        """
        difference = self.compare_state_dict(state)
        if difference.mismatched or (strict and (difference.missing or difference.unexpected)):
            raise ValueError(f"{type(self).__name__}.load_state_dict: {_explain(difference)}")
        for name, target in self._state():
            if name in state:
                given = _bare(state[name])
                given = given if is_array(given) else np.asarray(given)
                value = to_device(given, device_of(_bare(target)))
                if isinstance(target, Parameter):
                    target.assign(value)
                else:
                    target[...] = value
        return difference

    # Acting on the whole tree

    def apply(self: M, fn: Callable[[Module], Any]) -> M:
        """Call `fn` on every module, children first."""
        for child in self.children():
            child.apply(fn)
        fn(self)
        return self

    def train(self: M, mode: bool = True) -> M:
        """Switch to training: batch statistics, dropout."""
        for module in self.modules():
            module.training = mode
        return self

    def eval(self: M) -> M:
        """Switch to evaluation: running statistics, no dropout."""
        return self.train(False)

    def zero_grad(self) -> None:
        """Forget the gradients of all parameters."""
        for p in self.parameters():
            p.zero_grad()

    def requires_grad_(self: M, requires_grad: bool = True) -> M:
        """Freeze (False) or unfreeze all parameters."""
        for p in self.parameters():
            p.requires_grad = requires_grad
        return self

    def to(self: M, target: Any) -> M:
        """Move to a device ("cpu", "cuda", "auto") or to float32 or float64, before optimising."""
        if isinstance(target, str) and target in ("auto", *DEVICES):
            device = resolve_device(target)
            return self._convert(lambda a: to_device(a, device))
        try:
            dtype = np.dtype(target)
        except TypeError:
            dtype = np.dtype(object)
        if target is None or dtype not in FLOATS:
            devices = ", ".join(DEVICES)
            raise DTypeError(
                f"{type(self).__name__}.to: {target!r} is neither float32 or float64 nor a device "
                f"(auto, {devices})"
            )
        return self._convert(lambda a: a.astype(dtype, copy=False) if a.dtype.kind == "f" else a)

    def _convert(self: M, fn: Callable[[Any], Any]) -> M:
        for p in self.parameters():
            p._adopt(fn(p.array))
            p.bump_version()
            p.grad = None if p.grad is None else fn(p.grad)
        for module in self.modules():
            for name in module._buffer_names:
                if vars(module)[name] is not None:
                    setattr(module, name, fn(vars(module)[name]))
        return self

    # Showing it

    def extra_repr(self) -> str:
        """What stands between the brackets of `repr`."""
        return ""

    def __repr__(self) -> str:
        below = "".join(f"\n({name}): {child!r}" for name, child in self.named_children())
        inside = self.extra_repr() + indent(below, "  ") + ("\n" if below else "")
        return f"{type(self).__name__}({inside})"


def _bare(value: Any) -> Any:
    return value.array if isinstance(value, Tensor) else value


def _once(pairs: Iterator[tuple[str, Any]]) -> Iterator[tuple[str, Any]]:
    seen: set[int] = set()
    for name, value in pairs:
        if id(value) not in seen:
            seen.add(id(value))
            yield name, value


def _explain(difference: StateMismatch) -> str:
    def listed(items: list[str]) -> str:
        more = len(items) - NAMED_IN_ERRORS
        return ", ".join(items[:NAMED_IN_ERRORS]) + (f" and {more} more" if more > 0 else "")

    def hinted(name: str) -> str:
        close = difflib.get_close_matches(name, difference.unexpected[:500], 1)
        return f"{name} (found {close[0]})" if close else name

    missing = [hinted(name) for name in difference.missing[:NAMED_IN_ERRORS]]
    missing += difference.missing[NAMED_IN_ERRORS:]
    shapes = [f"{n} is {given} but must be {own}" for n, given, own in difference.mismatched]
    kinds = {"missing": missing, "unexpected": difference.unexpected, "other shapes": shapes}
    return "; ".join(f"{kind}: {listed(items)}" for kind, items in kinds.items() if items)
