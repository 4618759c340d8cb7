"""The graph that reverse-mode differentiation walks: nodes, the walk, and the modes that switch it.

Every differentiable operation makes one `Node`: its backward closure, and an edge to where each
input came from (the node that made it, or a leaf tensor). A node is younger than the nodes it
depends on, so taking the youngest pending node first is a
reverse topological order: no recursion, no marking, O(n log n).
"""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable
from contextlib import ContextDecorator
from contextvars import ContextVar, Token
from typing import Any

import numpy as np

from .backend import add_to, array_module
from .errors import GraphError, NonFiniteError, ShapeError

__all__ = [
    "OPS",
    "Node",
    "check_finite",
    "detect_anomaly",
    "enable_grad",
    "is_anomaly_enabled",
    "is_grad_enabled",
    "no_grad",
    "run_backward",
]

_grad_enabled: ContextVar[bool] = ContextVar("grad_enabled", default=True)
_anomaly: ContextVar[bool] = ContextVar("anomaly", default=False)
_ages = itertools.count()

OPS: dict[str, Callable[..., Any]] = {}  # every operation by name; filled by `minires.op.op`


class _Mode(ContextDecorator):
    """Sets a context variable inside a `with` block or a decorated function; may be nested."""

    variable: ContextVar[bool]
    value: bool

    def __init__(self) -> None:
        self._tokens: list[Token[bool]] = []

    def __enter__(self) -> _Mode:
        self._tokens.append(self.variable.set(self.value))
        return self

    def __exit__(self, *_: object) -> None:
        self.variable.reset(self._tokens.pop())


class no_grad(_Mode):
    """Record no graph: `with no_grad(): ...` or `@no_grad()`."""

    variable, value = _grad_enabled, False


class enable_grad(_Mode):
    """Record again inside `no_grad`."""

    variable, value = _grad_enabled, True


class detect_anomaly(_Mode):
    """Check every output and every gradient, and name the operation that made the first NaN or Inf.

    >>> import minires as mr
    >>> x = mr.tensor([-1.0])
    >>> with mr.detect_anomaly(), np.errstate(invalid="ignore"):
    ...     y = x.sqrt() + 1
    Traceback (most recent call last):
    minires.errors.NonFiniteError: sqrt: 1 of 1 output values are NaN or Inf, first at (0,)
    """

    variable, value = _anomaly, True


def is_grad_enabled() -> bool:
    """Whether operations record a graph now."""
    return _grad_enabled.get()


def is_anomaly_enabled() -> bool:
    """Whether `detect_anomaly` is on."""
    return _anomaly.get()


def check_finite(array: Any, op: str, what: str) -> None:
    """Raise `NonFiniteError` naming `op` when a float array holds NaN or Inf."""
    if array.dtype.kind != "f":
        return
    bad = ~array_module(array).isfinite(array)
    if bad.any():
        first = tuple(
            int(i) for i in np.argwhere(bad if isinstance(bad, np.ndarray) else bad.get())[0]
        )
        count = f"{int(bad.sum())} of {array.size}"
        raise NonFiniteError(f"{op}: {count} {what} values are NaN or Inf, first at {first}", op)


class Node:
    """One application of an operation.

    edges: for each input the `Node` that made it, the leaf tensor, or None where no gradient is
        wanted.
    counters, versions: of the inputs and the output; whoever writes in place raises its counter.
    shape, dtype: of the output.

    A long graph is many nodes, and the garbage collector looks at every container: they are few.
    """

    __slots__ = (
        *("age", "backward", "counters", "dtype", "edges"),
        *("grad", "op", "owned", "shape", "versions"),
    )

    def __init__(
        self,
        op: str,
        backward: Callable[..., Any] | None,
        edges: list[Any],
        counters: list[list[int]],
        output: Any,
    ) -> None:
        self.op, self.backward, self.edges, self.counters = op, backward, edges, counters
        self.versions = tuple([counter[0] for counter in counters])
        self.shape, self.dtype = output.shape, output.dtype
        self.age = next(_ages)
        self.grad: Any = None
        self.owned = False

    def __lt__(self, other: Node) -> bool:  # heapq takes the smallest: the youngest node
        return self.age > other.age

    def release(self) -> None:
        """Forget what backward needed, so that its memory is free at once."""
        self.backward, self.edges, self.counters, self.versions = None, [], [], ()

    def input_gradients(self, g: Any) -> tuple[Any, ...]:
        """Call the backward closure and check what it returns."""
        if self.backward is None:
            raise GraphError(
                f"backward: the graph through {self.op} was already differentiated and freed; "
                "pass retain_graph=True to the first backward() to use it twice"
            )
        for position, counter in enumerate(self.counters):
            if counter[0] != (value := self.versions[position]):
                last = position == len(self.versions) - 1
                what = "the output" if last else f"tensor input {position}"
                raise GraphError(
                    f"backward: {what} of {self.op} was changed in place after it was used "
                    f"(version {counter[0]}, was {value}); its gradient would be wrong"
                )
        more = (tuple([edge is not None for edge in self.edges]), self.take)
        grads = self.backward(g, *more[: _argument_count(self.backward) - 1])
        if len(grads) != len(self.edges):
            raise GraphError(
                f"backward of {self.op} returned {len(grads)} gradients, not {len(self.edges)}"
            )
        return grads

    def take(self, position: int) -> Any:
        """What other nodes have sent to an input so far, or None: the backward closure that takes
        it returns the sum with its own gradient, and may write into it.
        """
        source = self.edges[position]
        if not isinstance(source, Node) or not source.owned:
            return None
        total, source.grad = source.grad, None
        return total


def _argument_count(backward: Callable[..., Any]) -> int:
    code = getattr(backward, "__code__", None)
    return 1 if code is None else code.co_argcount


def run_backward(root: Node, upstream: Any, retain_graph: bool) -> None:
    """Add to `.grad` of every leaf that `root` depends on; `upstream` is like root's output."""
    root.grad, root.owned = upstream, False
    pending = [root]
    try:
        while pending:
            node = heapq.heappop(pending)
            g, node.grad, node.owned = node.grad, None, False
            grads = node.input_gradients(g)
            for position, (source, dx) in enumerate(zip(node.edges, grads, strict=True)):
                if source is None or dx is None:
                    continue
                dx = _checked(node, position, dx)
                fresh = _is_fresh(dx, g, grads)
                if not isinstance(source, Node):
                    _add_to_leaf(source, dx, fresh)
                elif source.grad is None:
                    if not source.owned:  # else it was taken, and is pending
                        heapq.heappush(pending, source)
                    source.grad, source.owned = dx, fresh
                elif source.owned:
                    source.grad = add_to(source.grad, dx)
                else:
                    source.grad, source.owned = source.grad + dx, True
            if not retain_graph:
                node.release()
            del grads, dx  # what was added needs its memory no longer
    finally:
        for node in pending:  # after an error, leave no half-made sums behind
            node.grad, node.owned = None, False


def _checked(node: Node, position: int, dx: Any) -> Any:
    source = node.edges[position]
    if dx.shape != source.shape:
        raise ShapeError(
            f"backward of {node.op} returned a gradient of shape {dx.shape} "
            f"for input {position} of shape {source.shape}"
        )
    if _anomaly.get():
        check_finite(dx, f"{node.op} (backward)", f"gradient-of-input-{position}")
    return dx if dx.dtype == source.dtype else dx.astype(source.dtype)


def _is_fresh(dx: Any, g: Any, grads: tuple[Any, ...]) -> bool:
    """Whether `dx` may be added to in place: not when it is the upstream or a view of it, handed
    out twice, or a broadcast view, of which many elements are one.
    """
    if dx is g or 0 in dx.strides:
        return False
    if isinstance(dx.base, type(dx)) and array_module(dx).may_share_memory(dx, g):
        return False
    return len(grads) == 1 or [id(other) for other in grads].count(id(dx)) == 1


def _add_to_leaf(leaf: Any, dx: Any, fresh: bool) -> None:
    if leaf.grad is None:
        leaf.grad = dx if fresh else dx.copy()
    else:  # not in place: somebody may hold the array
        leaf.grad = leaf.grad + dx
