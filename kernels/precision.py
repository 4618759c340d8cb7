"""The precision of convolutions: what `operands` chooses, and which numbers it concerns.

                 what convolutions multiply                        where
    float32      the numbers as they are                           everywhere
    tf32         rounded to 11 bits inside the tensor cores        GPUs from 8.0 on
    bf16         rounded to bf16, 8 bits and float32's range       GPUs from 8.0 on, some CPUs
    fp16         rounded to fp16, 11 bits, 6e-8 to 65504           GPUs from 7.0 on

Only the two operands of a convolution's products are ever 16 bits: the columns gathered from an
image, or a 1x1 convolution's images, the weights, and the gradients of outputs. They are rounded in
the launch that gathers them, or in one before the product, and forgotten after it. Products are
summed up in float32 and written as float32; images, outputs, weights, all gradients, BatchNorm, the
optimiser and its state are float32 always. So are depthwise convolutions, which memory limits, the
dense layer, and everything in float64. What the CPU rounds: `bf16`.

fp16 loses gradients below 6e-8, so losses are scaled: `scaling`.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import numpy as np

__all__ = ["NARROW", "operand_dtype", "operand_kind", "operands"]

# how operands of 16 bits are stored: neither NumPy nor CuPy has bf16, so as its bits
NARROW = {"bf16": np.dtype(np.uint16), "fp16": np.dtype(np.float16)}

_operands: ContextVar[str] = ContextVar("operands", default="float32")


@contextmanager
def operands(kind: str) -> Iterator[None]:
    """Let convolutions multiply numbers of this `kind`, a name of the table, inside this block.

    >>> with operands("bf16"):
    ...     operand_kind()
    'bf16'
    """
    token = _operands.set(kind)
    try:
        yield
    finally:
        _operands.reset(token)


def operand_kind() -> str:
    """What `operands` chose, "float32" outside of it."""
    return _operands.get()


def operand_dtype(dtype: Any) -> np.dtype:
    """What the operands of a GPU's product of arrays of this dtype are stored as."""
    dtype = np.dtype(dtype)
    return NARROW.get(_operands.get(), dtype) if dtype == np.float32 else dtype
