"""Wide residual networks for CIFAR: 6 n + 4 layers (Zagoruyko and Komodakis, BMVC 2016).

Pre-activation blocks, `width` times as wide as in He's networks; shortcuts that change the shape
are 1x1 convolutions without BatchNorm.
"""

from __future__ import annotations

from typing import Any

from .preact import PreActBlock, PreActResNet

__all__ = ["wide_resnet"]


def wide_resnet(
    depth: int, width: int, num_classes: int = 10, dropout: float = 0.0, **options: Any
) -> PreActResNet:
    """WRN-depth-width: 36,479,194 parameters for (28, 10). dropout: between the convolutions.

    >>> wide_resnet(27, 10)
    Traceback (most recent call last):
    ValueError: wide_resnet: depth is 27 but must be 6 n + 4 (10, 16, 22, 28, 34, 40, …)
    """
    if depth < 10 or depth % 6 != 4:
        raise ValueError(
            f"wide_resnet: depth is {depth} but must be 6 n + 4 (10, 16, 22, 28, 34, 40, …)"
        )
    if width < 1:
        raise ValueError(f"wide_resnet: width is {width} but must be 1 or more")
    options = {"widths": (16 * width, 32 * width, 64 * width), "stem_width": 16, **options}
    depths = [(depth - 4) // 6] * 3
    return PreActResNet(PreActBlock, depths, num_classes, "cifar", dropout=dropout, **options)
