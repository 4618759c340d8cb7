"""Models by name, for the command line and for files that say which model they hold."""

from __future__ import annotations

import difflib
import inspect
import re
from collections.abc import Callable
from functools import partial
from typing import Any

from .article import article_net
from .cifar_resnet import resnet20, resnet32, resnet44, resnet56, resnet110
from .classifier import ImageClassifier
from .plain import plain18, plain20, plain34, plain56
from .preact import (
    preact_resnet18,
    preact_resnet34,
    preact_resnet50,
    preact_resnet101,
    preact_resnet152,
)
from .resnet import (
    resnet18,
    resnet34,
    resnet50,
    resnet101,
    resnet152,
    resnext50_32x4d,
    wide_resnet50_2,
)
from .whitened import whitened_resnet
from .wide import wide_resnet

__all__ = ["build", "names"]

CONSTRUCTORS: tuple[Callable[..., ImageClassifier], ...] = (
    *(resnet18, resnet34, resnet50, resnet101, resnet152, resnext50_32x4d, wide_resnet50_2),
    *(resnet20, resnet32, resnet44, resnet56, resnet110),
    *(preact_resnet18, preact_resnet34, preact_resnet50, preact_resnet101, preact_resnet152),
    *(plain18, plain34, plain20, plain56, article_net, whitened_resnet),
)
BY_NAME = {constructor.__name__: constructor for constructor in CONSTRUCTORS}
WIDE = re.compile(r"wide_resnet_?(\d+)_(\d+)")


def names() -> list[str]:
    """The names that `build` knows; wide_resnet28_10 stands for every wide_resnet<depth>_<width>.

    >>> names()[:3]
    ['resnet18', 'resnet34', 'resnet50']
    """
    return [*BY_NAME, "wide_resnet28_10"]


def build(
    name: str, num_classes: int = 10, stem: str | None = None, **options: Any
) -> ImageClassifier:
    """The model `name`, with its own default stem unless given; options: of its constructor.

    Raises ValueError for an unknown name or a stem that the model does not have.

    >>> build("resnet-20")
    Traceback (most recent call last):
    ValueError: model is 'resnet-20' but must be one of resnet18, ... (did you mean resnet20?)
    """
    constructor = _constructor(name)
    if "stem" in inspect.signature(constructor).parameters:
        options |= {} if stem is None else {"stem": stem}
    elif stem not in (None, "cifar"):
        raise ValueError(f"{name}: stem is {stem!r} but this model has only the cifar stem")
    return constructor(num_classes=num_classes, **options)


def _constructor(name: str) -> Callable[..., ImageClassifier]:
    if name in BY_NAME:
        return BY_NAME[name]
    if wide := WIDE.fullmatch(name):
        return partial(wide_resnet, int(wide[1]), int(wide[2]))
    close = difflib.get_close_matches(name, names(), 1)
    hint = f" (did you mean {close[0]}?)" if close else ""
    raise ValueError(f"model is {name!r} but must be one of {', '.join(names())}{hint}")
