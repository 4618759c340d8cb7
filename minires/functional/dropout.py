"""Dropout: random zeros in training."""

from __future__ import annotations

from ..kernels.cases import Case
from ..kernels.dropout import drop
from ..kernels.random import Key
from ..op import op
from ..random import next_key
from .elementwise import need_float

__all__ = ["dropout"]


@op(Case((4, 5), p=0.4, key=Key(1)), Case((4, 5), p=0.4, training=False))
def dropout(x, *, p=0.5, training=True, key=None):
    """Set each element to zero with probability p and scale the others by 1 / (1 - p).

    key: names the draw (`minires.kernels.random.Key`); by default the next one of the global
    source. The identity unless `training`. Source: Srivastava et al., JMLR 15, 2014.
    """
    need_float("dropout", x)
    if not 0 <= p < 1:
        raise ValueError(f"dropout: p is {p} but must be in [0, 1)")
    if not training or p == 0:
        return x, lambda g: (g,)
    key = next_key() if key is None else key
    return drop(x, p=p, key=key), lambda g: (drop(g, p=p, key=key),)
