"""Kernels: functions of bare arrays, each a readable reference with fast twins beside it.

Nothing here knows about tensors or gradients' graphs; each kernel can be read, tested and timed
alone. Start with `dispatch`.
"""

from . import compile_cache  # first: the kernels are defined with its folder
from .dispatch import KERNELS, kernel, ran, reference

__all__ = ["KERNELS", "compile_cache", "kernel", "ran", "reference"]
