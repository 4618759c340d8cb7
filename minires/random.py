"""The one global source of random keys: a seed and the number of keys handed out so far.

Initialisation, dropout and whatever else draws at random asks for `next_key()`; the draw itself is
a pure function of the key (see `minires.kernels.random`). So the whole random state is two
integers, which a checkpoint stores.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from .kernels.random import Key

__all__ = ["counted_on_gpu", "get_state", "manual_seed", "next_key", "set_state"]

STREAM = 0  # of the global source; data loaders draw from streams of their own

_state = {"seed": 0, "position": 0}
_counters: Iterator[Any] | None = None


def manual_seed(seed: int) -> None:
    """Restart the global source.

    >>> manual_seed(3)
    >>> next_key()
    Key(seed=3, stream=0, step=0)
    >>> get_state()
    {'seed': 3, 'position': 1}
    """
    if not 0 <= seed < 2**64:
        raise ValueError(f"manual_seed: seed is {seed} but must be 0 to 2**64 - 1")
    set_state({"seed": int(seed), "position": 0})


def next_key() -> Key:
    """A key that was not handed out since the last `manual_seed`."""
    step = next(_counters) if _counters is not None else _state["position"]
    _state["position"] += 1
    return Key(_state["seed"], STREAM, step)


@contextmanager
def counted_on_gpu(counters: Any) -> Iterator[None]:
    """Inside, keys have their steps in the GPU's memory: one after the other in `counters`, uint64
    (n,). What is recorded there draws anew each time it is repeated after they have changed.
    """
    global _counters
    _counters = iter([counters[i : i + 1] for i in range(len(counters))])
    try:
        yield
    finally:
        _counters = None


def get_state() -> dict[str, int]:
    """The state, to be given to `set_state` later."""
    return dict(_state)


def set_state(state: dict[str, int]) -> None:
    """Go back to a state that `get_state` returned."""
    _state.update(seed=state["seed"], position=state["position"])
