"""The pytest fixture `gradcheck`: with minires installed, `def test_layer(gradcheck):
gradcheck(layer, [x])` just works.

pytest imports this module, and with it the package, at every start in an environment that has
minires; the gradient checker itself is looked up when a test asks for the fixture.
"""

from __future__ import annotations

from typing import Any

import pytest

__all__ = ["gradcheck"]


@pytest.fixture(scope="session")
def gradcheck() -> Any:
    """`minires.gradcheck`, the function that compares gradients with numerical derivatives."""
    from .checking import gradcheck

    return gradcheck
