"""`Tensor`: an array that remembers which operation made it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from .autograd import OPS, Node, run_backward
from .backend import array_module, device_of, is_array, resolve_device, to_device
from .errors import DTypeError, GraphError, ShapeError
from .operators import Operators

__all__ = ["FLOATS", "Tensor", "tensor"]

FLOATS = (np.dtype(np.float32), np.dtype(np.float64))


class Tensor(Operators):
    """An array on the CPU or a GPU, with its place in the graph. Make one with `tensor(...)`.

    array: the bare array. Read it freely, change it only through `assign` or in-place operators,
    which raise `version`.
    grad: the gradient, a bare array like `array`, or None.
    aux: bare arrays that the operation returned beside its output (batch statistics), or None.
    """

    __slots__ = ("__weakref__", "_counter", "_node", "array", "aux", "grad", "requires_grad")

    def __init__(self, array: Any, requires_grad: bool = False) -> None:
        if requires_grad and array.dtype not in FLOATS:
            raise DTypeError(f"tensor: only float32 and float64 have gradients, not {array.dtype}")
        self.array = array
        self.requires_grad = requires_grad
        self.grad: Any = None
        self.aux: Any = None
        self._node: Node | None = None
        self._counter = [0]  # shared with every tensor that looks at the same memory

    # What it is

    shape = property(lambda self: self.array.shape)
    ndim = property(lambda self: self.array.ndim)
    size = property(lambda self: self.array.size)
    dtype = property(lambda self: self.array.dtype)
    device = property(lambda self: device_of(self.array))
    version = property(lambda self: self._counter[0], doc="How often the data changed in place.")

    def __repr__(self) -> str:
        text = np.array2string(self._host(), separator=", ", prefix="tensor(", threshold=100)
        extra = "" if self.dtype == np.float32 else f", dtype={self.dtype}"
        extra += "" if self.device == "cpu" else f", device={self.device!r}"
        extra += f", op={self._node.op}" if self._node else ""
        extra += ", requires_grad=True" if self.requires_grad and not self._node else ""
        return f"tensor({text}{extra})"

    def __len__(self) -> int:
        if not self.ndim:
            raise TypeError("len: a tensor of shape () has no length")
        return self.shape[0]

    def __iter__(self) -> Iterator[Tensor]:
        return (self[i] for i in range(len(self)))

    # Getting data out

    def _host(self) -> np.ndarray:
        return to_device(self.array, "cpu")

    def numpy(self) -> np.ndarray:
        """The data as a NumPy array: on the CPU a read-only view, from a GPU a copy."""
        view = self._host().view()
        view.flags.writeable = False
        return view

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        if self.device != "cpu":
            raise TypeError("np.asarray: the tensor is on a GPU; call .numpy() to copy it")
        return np.array(self.numpy(), dtype=dtype, copy=copy)

    def item(self) -> float | int | bool:
        """The value of a tensor of one element as a Python number."""
        if self.size != 1:
            raise ShapeError(f"item: needs a tensor of one element, got shape {self.shape}")
        return self.array.item()

    __float__ = lambda self: float(self.item())  # noqa: E731
    __int__ = lambda self: int(self.item())  # noqa: E731
    __bool__ = lambda self: bool(self.item())  # noqa: E731

    # Changing data, and leaving the graph

    def assign(self, value: Any) -> Tensor:
        """Overwrite the data in place with `value` (broadcast); a graph that used it notices."""
        value = value.array if isinstance(value, Tensor) else value
        given = np.shape(value)
        fits = zip(given[::-1], self.shape[::-1], strict=False)
        if len(given) > self.ndim or any(a not in (1, b) for a, b in fits):
            raise ShapeError(f"assign: value has shape {given} but the tensor {self.shape}")
        self.array[...] = value
        self._counter[0] += 1
        return self

    def bump_version(self) -> None:
        """Say that the memory was written by other means."""
        self._counter[0] += 1

    def _adopt(self, array: Any) -> None:
        """Move the data to `array`, which already holds equal values (optimisers: flat buffers)."""
        self.array = array

    def detach(self) -> Tensor:
        """The same memory outside the graph."""
        out = Tensor(self.array)
        out._counter = self._counter
        return out

    def to(self, target: Any) -> Tensor:
        """This tensor on another device ("cpu", "cuda") or, differentiably, in another dtype."""
        if isinstance(target, str) and target in ("auto", "cpu", "cuda"):
            moved = to_device(self.array, resolve_device(target))
            return (
                self
                if moved is self.array
                else Tensor(moved, self.requires_grad and not self._node)
            )
        dtype = _dtype("to", target)
        return self if self.dtype == dtype else OPS["astype"](self, dtype=dtype)

    def zero_grad(self) -> None:
        """Forget the gradient."""
        self.grad = None

    def backward(
        self, upstream: Any = None, retain_graph: bool = False, create_graph: bool = False
    ) -> None:
        """Add d(sum(self * upstream))/d(leaf) to `.grad` of every leaf that requires it.

        upstream: an array of this shape; may be left out for a single number, where it is 1. The
        graph is freed as the walk goes, unless `retain_graph`.

        >>> import minires as mr
        >>> x = mr.tensor([1.0, 2.0], requires_grad=True)
        >>> (x * x).sum().backward()
        >>> x.grad
        array([2., 4.], dtype=float32)
        """
        if create_graph:
            raise GraphError(
                "backward: create_graph=True, but second-order gradients are not supported"
            )
        if not self.requires_grad:
            raise GraphError("backward: this tensor depends on nothing that requires a gradient")
        xp = array_module(self.array)
        if upstream is None:
            if self.size != 1:
                raise ShapeError(f"backward: give an upstream array of shape {self.shape}")
            upstream = xp.ones(self.shape, self.dtype)
        upstream = upstream.array if isinstance(upstream, Tensor) else upstream
        g = xp.asarray(upstream, self.dtype, order="C")
        if g.shape != self.shape:
            raise ShapeError(f"backward: upstream has shape {g.shape} but the tensor {self.shape}")
        if self._node is None:
            self.grad = g.copy() if self.grad is None else self.grad + g
        else:
            run_backward(self._node, g, retain_graph)


def tensor(
    a: Any, *, requires_grad: bool = False, dtype: Any = None, device: str | None = None
) -> Tensor:
    """Copy `a` into a new leaf tensor.

    Float arrays keep their dtype, Python numbers and lists become float32, integers and booleans
    stay what they are and cannot require gradients. device: "cpu", "cuda", "auto", or None for
    where `a` is.

    >>> import minires as mr
    >>> mr.tensor([[1, 2], [3, 4]], requires_grad=True)
    tensor([[1., 2.],
            [3., 4.]], requires_grad=True)
    """
    a = a.array if isinstance(a, Tensor) else a
    if not is_array(a) and not isinstance(a, np.generic):
        a = _numbers(a, np.float32 if dtype is None else _dtype("tensor", dtype))
    kept = a.dtype if dtype is None else _dtype("tensor", dtype)
    if kept not in FLOATS and kept.kind not in "iub":
        raise DTypeError(f"tensor: dtype {kept} is not float32, float64, an integer type or bool")
    array = array_module(a).array(a, dtype=kept, order="C")
    return Tensor(
        array if device is None else to_device(array, resolve_device(device)), requires_grad
    )


def _numbers(a: Any, dtype: Any) -> np.ndarray:
    """Python numbers and nested lists of them as an array."""
    try:
        plain = np.asarray(a)
    except ValueError as error:  # lists of unequal lengths
        raise ShapeError(f"tensor: {error}") from None
    if plain.dtype.kind not in "biuf":
        raise DTypeError(f"tensor: expected numbers, got {type(a).__name__} {a!r}")
    return plain.astype(dtype)


def _dtype(name: str, dtype: Any) -> np.dtype:
    try:
        return np.dtype(dtype)
    except TypeError:
        what = "neither a dtype nor a device (auto, cpu, cuda)" if name == "to" else "no dtype"
        raise DTypeError(f"{name}: {dtype!r} is {what}") from None
