"""`@op`: how an operation is defined, recorded and registered.

An operation is one function of bare arrays that returns its output and the closure that undoes it:

    @op(Case((2, 3)))
    def square(x):
        def backward(g):
            return (2 * x * g,)
        return x * x, backward

Its positional parameters are arrays, its keyword-only ones plain values (a call may give those by
position too, after all the arrays: `max_pool2d(x, 2)`). Adding an operation
touches one place: from the registry `OPS` and the cases it gets its method tests, gradient checks
and twin comparisons.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import update_wrapper
from typing import Any

import numpy as np

from .autograd import OPS, Node, check_finite, is_anomaly_enabled, is_grad_enabled
from .backend import array_module, is_array
from .errors import DTypeError, ShapeError
from .kernels.cases import Case
from .tensor import Tensor

__all__ = ["OPS", "Op", "listen", "op"]

Heard = Callable[[str, tuple[Any, ...], dict[str, Any], Tensor], None]
_listener: ContextVar[Heard | None] = ContextVar("listener", default=None)


@contextmanager
def listen(heard: Heard) -> Iterator[None]:
    """Inside, every operation called in this thread is told: heard(name, inputs, parameters,
    output).

    >>> import minires as mr
    >>> with listen(lambda name, *_: print(name)):
    ...     y = mr.tensor([1.0]) + 2
    add
    """
    token = _listener.set(heard)
    try:
        yield
    finally:
        _listener.reset(token)


class Op:
    """An operation: a call with tensors, arrays or numbers returns a tensor and records it."""

    def __init__(self, function: Callable[..., Any], cases: tuple[Case, ...]) -> None:
        update_wrapper(self, function)
        kinds = inspect.signature(function).parameters.values()
        self.name = function.__name__
        self.function, self.cases = function, cases
        self.arrays = [p.name for p in kinds if p.kind == p.POSITIONAL_OR_KEYWORD]
        self.params = [p.name for p in kinds if p.kind == p.KEYWORD_ONLY]
        self.required = [p.name for p in kinds if p.name in self.arrays and p.default is p.empty]
        self.takes_list = any(p.kind == p.VAR_POSITIONAL for p in kinds)

    def __repr__(self) -> str:
        return f"<op {self.name}{inspect.signature(self.function)}>"

    def __call__(self, *inputs: Any, **params: Any) -> Tensor:
        if self.takes_list:
            if len(inputs) == 1 and isinstance(inputs[0], list | tuple):
                inputs = tuple(inputs[0])
        elif len(inputs) > len(self.arrays):
            inputs, params = self._by_name(inputs, params)
        if params:  # arrays given by name
            for name in self.arrays[len(inputs) :]:
                inputs += (params.pop(name, None),)
        arrays = [x.array if isinstance(x, Tensor) else _plain(x, self.name) for x in inputs]
        for name, a in zip(self.required, arrays, strict=False):
            if a is None:
                raise DTypeError(f"{self.name}: {name} is None but must be a tensor or an array")
        y, backward = self.function(*arrays, **params)
        y, aux = y if isinstance(y, tuple) else (y, None)
        out = Tensor(np.asarray(y) if isinstance(y, np.generic) else y)
        out.aux = aux
        if getattr(out.array, "base", None) is not None or id(y) in map(id, arrays):
            _share_version(out, inputs)
        if is_grad_enabled():
            self._record(out, inputs, backward)
        if is_anomaly_enabled():
            self._check_finite(out, inputs)
        if (heard := _listener.get()) is not None:
            heard(self.name, inputs, params, out)
        return out

    def _by_name(self, inputs: Any, params: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        """Name the plain parameters that were given by position."""
        given = dict(zip(self.params, inputs[len(self.arrays) :], strict=False))
        if len(given) < len(inputs) - len(self.arrays) or given.keys() & params.keys():
            raise TypeError(f"{self!r} got too many arguments: {len(inputs)} by position")
        return inputs[: len(self.arrays)], {**given, **params}

    def _record(self, out: Tensor, inputs: Any, backward: Any) -> None:
        edges, counters, wanted = [], [], False
        for x in inputs:
            source = None
            if isinstance(x, Tensor):
                counters.append(x._counter)
                if x.requires_grad:
                    source, wanted = x._node or x, True
            edges.append(source)
        if wanted:
            counters.append(out._counter)
            out.requires_grad = True
            out._node = Node(self.name, backward, edges, counters, out.array)

    def _check_finite(self, out: Tensor, inputs: Any) -> None:
        for position, x in enumerate(inputs):
            if isinstance(x, Tensor):
                check_finite(x.array, self.name, f"input-{position}")
        check_finite(out.array, self.name, "output")


def _share_version(out: Tensor, inputs: Any) -> None:
    """Give a view its input's version counter, so that writing through either is noticed."""
    for x in inputs:
        if isinstance(x, Tensor) and array_module(x.array).may_share_memory(out.array, x.array):
            out._counter = x._counter


def _plain(x: Any, name: str) -> Any:
    """A non-tensor input as the operation sees it; Python numbers take the tensor's dtype."""
    if x is None or type(x) in (float, int, bool) or is_array(x):
        return x
    if isinstance(x, np.generic):  # np.float64(2) too would promote float32
        return x.item()
    try:
        a = np.asarray(x)
    except ValueError as error:  # lists of unequal lengths
        raise ShapeError(f"{name}: {error}") from None
    if a.dtype.kind not in "biuf":
        found = type(x).__name__
        raise DTypeError(f"{name}: expected a tensor, an array or a number, got {found}")
    return a.astype(np.float32) if a.dtype.kind == "f" else a


def op(*cases: Case) -> Callable[[Callable[..., Any]], Op]:
    """Define an operation; `cases` are the sample calls from which its tests are generated.

    The decorated function takes bare arrays and returns `(y, backward)`, or `((y, aux), backward)`
    to put bare arrays `aux` on the output. `backward(g)` returns one gradient an input (None where
    there is none); `backward(g, needs)` is also told which inputs want one, and `backward(g, needs,
    take)` may add to what others have sent to an input (`Node.take`). A gradient is g itself, a
    view of it, or a fresh array: never one that the closure keeps.
    """

    def decorate(function: Callable[..., Any]) -> Op:
        made = OPS[function.__name__] = Op(function, cases)
        return made

    return decorate
