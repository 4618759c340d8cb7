"""The errors raised on purpose: one line that names the value and what was expected."""

__all__ = [
    "DTypeError",
    "DataError",
    "GraphError",
    "NonFiniteError",
    "PictureError",
    "ShapeError",
]


class ShapeError(ValueError):
    """Arrays whose ranks or sizes do not fit together."""


class DTypeError(TypeError):
    """An array of a type that the operation does not take."""


class GraphError(RuntimeError):
    """A backward pass that cannot be right: a graph used twice, or an input changed since."""


class DataError(ValueError):
    """A data or weight file that is missing, damaged or of another kind; the message names it."""


class PictureError(DataError):
    """A picture, or all of a class, that cannot be read, where that is a reason to stop."""


class NonFiniteError(FloatingPointError):
    """NaN or Inf appeared; `op` names the operation that made the first one."""

    def __init__(self, message: str, op: str | None = None, step: int | None = None) -> None:
        super().__init__(message)
        self.op, self.step = op, step
