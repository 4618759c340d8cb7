"""What is being checked, as functions of plain float64 arrays: a function of tensors, a module, or
a pair of array functions.

A subject lists its `variables` (what is differentiated: inputs and parameters), evaluates the
outputs at given values, and linearises: outputs together with a vjp, which maps upstream arrays to
one gradient a variable. Around every evaluation it puts back what the function may have changed on
the side: the random state and the modules' buffers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from ..autograd import enable_grad
from ..random import get_state, set_state
from ..tensor import Tensor, tensor
from .report import GradcheckError
from .values import (
    ARRAYS,
    Variable,
    as_gradient,
    copy64,
    in_float64,
    named,
    real_outputs,
    unchanged,
)

__all__ = ["PairSubject", "Subject", "TensorSubject", "Vjp"]

Vjp = Callable[[Sequence[np.ndarray]], list[np.ndarray]]


class Subject:
    """The inputs, those of them that are differentiated, and how to run with other values."""

    def __init__(self, inputs: Any, wrt: Sequence[int] | None) -> None:
        many = isinstance(inputs, list | tuple)
        self.inputs: list[Any] = list(inputs) if many else [inputs]
        self.variables: list[Variable] = []
        self.slots: list[tuple[int, int | None]] = []  # of each variable: (input, item of a list)
        for i, x in enumerate(self.inputs):
            if wrt is not None and i not in wrt and i - len(self.inputs) not in wrt:
                self.inputs[i] = in_float64(x)
            elif isinstance(x, list | tuple) and any(isinstance(item, ARRAYS) for item in x):
                self.inputs[i] = [
                    self._add(f"input {i} item {j}", v, i, j) for j, v in enumerate(x)
                ]
            else:
                self.inputs[i] = self._add(f"input {i}", x, i, None)

    def _add(self, name: str, x: Any, i: int, item: int | None) -> Any:
        """Note `x` as a variable if it is real-valued; give it back as it is passed otherwise."""
        x = in_float64(x)
        if isinstance(x, np.ndarray) and x.dtype == np.float64:
            self.variables.append(Variable(name, x))
            self.slots.append((i, item))
        return x

    def _arguments(self, variables: Sequence[Any]) -> list[Any]:
        arguments = [list(x) if isinstance(x, list) else x for x in self.inputs]
        for (i, item), x in zip(self.slots, variables):
            if item is None:
                arguments[i] = x
            else:
                arguments[i][item] = x
        return arguments

    def outputs(self, values: Sequence[np.ndarray]) -> list[np.ndarray]:
        """The real-valued outputs where the variables have these values."""
        raise NotImplementedError

    def linearised(self, values: Sequence[np.ndarray], once: bool) -> tuple[list[np.ndarray], Vjp]:
        """(outputs, vjp). With `once` the vjp is called a single time."""
        raise NotImplementedError


class PairSubject(Subject):
    """`forward(*arrays)` and `vjp(upstream, *arrays)` of anyone's; arrays in, arrays out."""

    def __init__(self, pair: Any, inputs: Any, wrt: Sequence[int] | None) -> None:
        self.forward, self.vjp = pair
        super().__init__(inputs, wrt)

    def outputs(self, values: Sequence[np.ndarray]) -> list[np.ndarray]:
        return self._forward(values)[0]

    def _forward(self, values: Sequence[np.ndarray]) -> tuple[list[np.ndarray], bool]:
        copies = [v.copy() for v in values]
        y = self.forward(*self._arguments(copies))
        unchanged(copies, values, "forward", self.variables)
        many = isinstance(y, list | tuple)
        outputs = [np.asarray(item) for item in (y if many else (y,))]
        return real_outputs(outputs), many

    def linearised(self, values: Sequence[np.ndarray], once: bool) -> tuple[list[np.ndarray], Vjp]:
        outputs, many = self._forward(values)

        def vjp(upstreams: Sequence[np.ndarray]) -> list[np.ndarray]:
            copies = [v.copy() for v in values]
            given = [u.copy() for u in upstreams]
            grads = self.vjp(tuple(given) if many else given[0], *self._arguments(copies))
            unchanged(copies, values, "vjp", self.variables)
            grads = list(grads) if isinstance(grads, list | tuple) else [grads]
            if len(grads) == len(self.inputs):
                found = [grads[i] if j is None else grads[i][j] for i, j in self.slots]
            elif len(grads) == len(self.variables):
                found = grads
            else:
                expected = len(self.inputs)
                raise GradcheckError(f"vjp returned {len(grads)} gradients for {expected} inputs")
            return [as_gradient(g, v) for g, v in zip(found, self.variables)]

        return outputs, vjp


class TensorSubject(Subject):
    """A function of tensors or a module, whose parameters are float64 inside `frozen()`."""

    def __init__(self, function: Any, inputs: Any, wrt: Sequence[int] | None, params: Any) -> None:
        self.function = function
        super().__init__(inputs, wrt)
        owner = getattr(function, "__self__", function)  # of a method: its module
        self.modules = [m for m in (owner, params) if hasattr(m, "named_parameters")]
        given = [] if params is None else list(named(params))
        own = list(named(owner)) if hasattr(owner, "named_parameters") else []
        # all are cast, also those that are not differentiated
        self.tensors = list({id(p): p for _, p in [*own, *given]}.values())
        unique: dict[int, tuple[str, Tensor]] = {}  # a shared parameter counts once
        for name, p in own if params is None else given:
            unique.setdefault(id(p), (name, p))
        self.parameters: list[Tensor] = []
        for name, p in unique.values():
            if p.requires_grad and p.dtype.kind == "f":
                self.parameters.append(p)
                self.variables.append(Variable(f"parameter {name}", copy64(p.numpy())))

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """Parameters in float64 and gradients recorded inside; everything as found after."""
        found = [(p, p.array, p.grad) for p in self.tensors if p.dtype.kind == "f"]
        self.random = get_state()
        self.buffers = [(*place, b, b.copy()) for *place, b in self._find_buffers()]
        try:
            for p, array, _ in found:
                p.array = copy64(array)
                p.bump_version()  # whatever was derived from the float32 values is out of date
            with enable_grad():
                yield
        finally:
            self._put_back()
            for p, array, grad in found:
                p.array, p.grad = array, grad
                p.bump_version()

    def _find_buffers(self) -> Iterator[tuple[Any, str, np.ndarray]]:
        """(module, attribute, array) of every buffer below the modules."""
        for module in self.modules:
            below = dict(getattr(module, "named_modules", lambda: ())())
            for path, b in getattr(module, "named_buffers", lambda: ())():
                owner, _, attribute = path.rpartition(".")
                yield below.get(owner), attribute, b

    def _put_back(self) -> None:
        set_state(self.random)
        for owner, attribute, b, value in self.buffers:
            b[...] = value
            if getattr(owner, attribute, b) is not b:
                setattr(owner, attribute, b)

    def _run(self, values: Sequence[np.ndarray]) -> tuple[list[Tensor], list[Tensor]]:
        """(outputs, leaves) of a fresh run."""
        self._put_back()
        leaves = [tensor(v, requires_grad=True) for v in values[: len(self.slots)]]
        for p, v in zip(self.parameters, values[len(leaves) :]):
            p.assign(v)
            p.grad = None
        y = self.function(*self._arguments(leaves))
        outputs = list(y) if isinstance(y, list | tuple) else [y]
        for item in outputs:
            if not isinstance(item, Tensor):
                kind = type(item).__name__
                raise GradcheckError(f"the function returned {kind} where a Tensor was expected")
        self._put_back()
        return [y for y in outputs if y.dtype.kind not in "iub"], [*leaves, *self.parameters]

    def outputs(self, values: Sequence[np.ndarray]) -> list[np.ndarray]:
        return real_outputs([y.numpy() for y in self._run(values)[0]])

    def linearised(self, values: Sequence[np.ndarray], once: bool) -> tuple[list[np.ndarray], Vjp]:
        outputs, leaves = self._run(values)

        def vjp(upstreams: Sequence[np.ndarray]) -> list[np.ndarray]:
            for leaf in leaves:
                leaf.grad = None
            wanted = [(y, u) for y, u in zip(outputs, upstreams) if y.requires_grad and u.any()]
            for k, (y, u) in enumerate(wanted):
                y.backward(u.copy(), retain_graph=not once or k + 1 < len(wanted))
            return [as_gradient(leaf.grad, v) for leaf, v in zip(leaves, self.variables)]

        return real_outputs([y.numpy() for y in outputs]), vjp
