"""The numbers that steer a check, and the rule by which an element passes."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

__all__ = ["Settings", "scales"]


class Settings(NamedTuple):
    """See `gradcheck`."""

    directions: int = 4
    eps: float = 1e-3
    rtol: float = 1e-6
    atol_scale: float = 1e-8
    seed: int = 0

    def allowed(self, analytic: Any, numeric: Any, size: float, noise: Any) -> Any:
        """How far the two may be apart: `size` is the Jacobian's largest element, `noise` the
        numeric value's."""
        larger = np.maximum(np.abs(analytic), np.abs(numeric))
        return self.rtol * larger + np.maximum(self.atol_scale * size, noise)

    def error(self, analytic: Any, numeric: Any, size: float, noise: Any) -> np.ndarray:
        """|analytic - numeric| in units of which `rtol` is allowed; infinite where one is not
        finite."""
        apart = np.abs(np.asarray(analytic) - numeric)
        allowed = self.allowed(analytic, numeric, size, noise)
        with np.errstate(all="ignore"):
            error = np.where(apart == 0, 0.0, self.rtol * apart / allowed)
        return np.where(np.isfinite(error), error, np.inf)


def scales(x: np.ndarray) -> np.ndarray:
    """By how much the elements of `x` may move: their own size or that of the others, 1 where all
    are 0."""
    typical = np.sqrt(np.mean(x * x)) if x.size else 0.0
    return np.maximum(np.maximum(np.abs(x), typical), 1e-2) if typical else np.ones(x.shape)
