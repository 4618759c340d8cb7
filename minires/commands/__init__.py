"""The commands of `minires`, one module each.

A module offers `add(commands)`, which says what the command is called, takes and shows as examples,
and `run(given)`, which does it, prints, and returns the exit code. Put a new one into `COMMANDS`,
whose order is that of `minires --help`.
"""

from . import (
    compare,
    device_test,
    embed,
    evaluate,
    export,
    gradcheck,
    info,
    predict,
    recipes,
    train,
    weights,
)

__all__ = ["COMMANDS"]

COMMANDS = (
    train,
    recipes,
    compare,
    evaluate,
    predict,
    embed,
    export,
    weights,
    gradcheck,
    info,
    device_test,
)
