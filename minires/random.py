"""The one global source of random keys: a seed and the number of keys handed out so far.

Initialisation, dropout and whatever else draws at random asks for `next_key()`; the draw itself is
a pure function of the key (see `minires.kernels.random`). So the whole random state is two
integers, which a checkpoint stores.
"""

from __future__ import annotations

from .kernels.random import Key

__all__ = ["get_state", "manual_seed", "next_key", "set_state"]

STREAM = 0  # of the global source; data loaders draw from streams of their own

_state = {"seed": 0, "position": 0}


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
    key = Key(_state["seed"], STREAM, _state["position"])
    _state["position"] += 1
    return key


def get_state() -> dict[str, int]:
    """The state, to be given to `set_state` later."""
    return dict(_state)


def set_state(state: dict[str, int]) -> None:
    """Go back to a state that `get_state` returned."""
    _state.update(seed=state["seed"], position=state["position"])
