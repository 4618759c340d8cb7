"""What Python's operators and a tensor's methods mean: each is the operation of that name.

`Tensor` inherits them. The operations themselves stand in `minires.functional`, further down in the
reading order, and are found in the registry `OPS` by name when they are called.
"""

from __future__ import annotations

from typing import Any, Self

from .autograd import OPS, is_grad_enabled, no_grad
from .errors import GraphError

__all__ = ["Operators"]


class Operators:
    """The operators and methods of `Tensor`."""

    __slots__ = ()
    __array_ufunc__ = None  # NumPy arrays leave mixed operators to this class
    __hash__ = object.__hash__

    array: Any
    requires_grad: bool
    _node: Any

    def assign(self, value: Any) -> Self:
        """Overwrite the data in place."""
        raise NotImplementedError

    def __add__(self, other: Any) -> Self:
        return OPS["add"](self, other)

    def __radd__(self, other: Any) -> Self:
        return OPS["add"](other, self)

    def __sub__(self, other: Any) -> Self:
        return OPS["sub"](self, other)

    def __rsub__(self, other: Any) -> Self:
        return OPS["sub"](other, self)

    def __mul__(self, other: Any) -> Self:
        return OPS["mul"](self, other)

    def __rmul__(self, other: Any) -> Self:
        return OPS["mul"](other, self)

    def __truediv__(self, other: Any) -> Self:
        return OPS["div"](self, other)

    def __rtruediv__(self, other: Any) -> Self:
        return OPS["div"](other, self)

    def __pow__(self, other: Any) -> Self:
        return OPS["power"](self, other)

    def __rpow__(self, other: Any) -> Self:
        return OPS["power"](other, self)

    def __matmul__(self, other: Any) -> Self:
        return OPS["matmul"](self, other)

    def __rmatmul__(self, other: Any) -> Self:
        return OPS["matmul"](other, self)

    def __neg__(self) -> Self:
        return OPS["neg"](self)

    def __getitem__(self, index: Any) -> Self:
        return OPS["getitem"](self, index=index)

    def __iadd__(self, other: Any) -> Self:
        return self._in_place("add", other)

    def __isub__(self, other: Any) -> Self:
        return self._in_place("sub", other)

    def __imul__(self, other: Any) -> Self:
        return self._in_place("mul", other)

    def __itruediv__(self, other: Any) -> Self:
        return self._in_place("div", other)

    def _in_place(self, name: str, other: Any) -> Self:
        """Write into this memory where no gradient is recorded; else `x += y` means `x = x + y`."""
        wanted = self.requires_grad or (isinstance(other, Operators) and other.requires_grad)
        if is_grad_enabled() and wanted:
            if self.requires_grad and self._node is None:
                raise GraphError(
                    f"in-place {name}: a leaf that requires grad changes only under no_grad()"
                )
            return OPS[name](self, other)
        with no_grad():
            return self.assign(OPS[name](self, other).array)

    def __eq__(self, other: Any) -> Any:
        return self.array == _bare(other)

    def __ne__(self, other: Any) -> Any:
        return self.array != _bare(other)

    def __lt__(self, other: Any) -> Any:
        return self.array < _bare(other)

    def __le__(self, other: Any) -> Any:
        return self.array <= _bare(other)

    def __gt__(self, other: Any) -> Any:
        return self.array > _bare(other)

    def __ge__(self, other: Any) -> Any:
        return self.array >= _bare(other)

    T = property(lambda self: OPS["transpose"](self))

    def reshape(self, *shape: Any) -> Self:
        """`reshape(2, 3)`, `reshape((2, 3))` or `reshape(-1)`."""
        return OPS["reshape"](self, shape=shape[0] if isinstance(shape[0], tuple | list) else shape)

    def transpose(self, *axes: Any) -> Self:
        """Permute the axes; without arguments reverse them."""
        chosen = axes[0] if axes and isinstance(axes[0], tuple | list) else axes
        return OPS["transpose"](self, axes=tuple(chosen) or None)

    def flatten(self, start_axis: int = 0) -> Self:
        """Merge the axes from `start_axis` on."""
        return OPS["flatten"](self, start_axis=start_axis)

    def sum(self, axis: Any = None, keepdims: bool = False) -> Self:
        """The sum over `axis` (all axes without one)."""
        return OPS["sum"](self, axis=axis, keepdims=keepdims)

    def mean(self, axis: Any = None, keepdims: bool = False) -> Self:
        """The mean over `axis`."""
        return OPS["mean"](self, axis=axis, keepdims=keepdims)

    def var(self, axis: Any = None, keepdims: bool = False, ddof: int = 0) -> Self:
        """The variance over `axis`, divided by n - ddof."""
        return OPS["var"](self, axis=axis, keepdims=keepdims, ddof=ddof)

    def max(self, axis: Any = None, keepdims: bool = False) -> Self:
        """The maximum over `axis`."""
        return OPS["max"](self, axis=axis, keepdims=keepdims)

    def min(self, axis: Any = None, keepdims: bool = False) -> Self:
        """The minimum over `axis`."""
        return OPS["min"](self, axis=axis, keepdims=keepdims)

    def exp(self) -> Self:
        """e to this power."""
        return OPS["exp"](self)

    def log(self) -> Self:
        """The natural logarithm."""
        return OPS["log"](self)

    def sqrt(self) -> Self:
        """The square root."""
        return OPS["sqrt"](self)

    def relu(self) -> Self:
        """max(x, 0)."""
        return OPS["relu"](self)

    def argmax(self, axis: int | None = None) -> Any:
        """Where the maximum is: a bare integer array."""
        return self.array.argmax(axis)


def _bare(x: Any) -> Any:
    return x.array if isinstance(x, Operators) else x
