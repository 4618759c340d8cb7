"""Kernels: functions of bare arrays, each a readable reference with fast twins beside it.

Nothing here knows about tensors or gradients' graphs; each kernel can be read, tested and timed
alone. Start with `dispatch`.
"""

from .dispatch import KERNELS, kernel, ran, reference

__all__ = ["KERNELS", "kernel", "ran", "reference"]
