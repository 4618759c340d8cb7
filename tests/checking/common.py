"""What the tests of `gradcheck` share."""

from __future__ import annotations

import numpy as np
import pytest

from minires import gradcheck
from minires.checking import GradcheckError

__all__ = ["MODES", "RNG", "W", "X", "failure"]

RNG = np.random.default_rng(0)
X, W = RNG.standard_normal((3, 4)), RNG.standard_normal((4, 2))
MODES = pytest.mark.parametrize("mode", ["full", "directions"])


def failure(*args, **options) -> str:
    """The message of a check that must fail."""
    with pytest.raises(GradcheckError) as caught:
        gradcheck(*args, **options)
    return str(caught.value)
