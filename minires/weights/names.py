"""Names of tensors in files and in models: wrappers' prefixes, repositories' habits, and a guess at
what a file is."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from typing import Any

__all__ = ["guess", "match_names", "without_prefix"]

PREFIXES = (
    "module.",
    "_orig_mod.",
    "model.",
    "net.",
)  # DataParallel, torch.compile, wrapper classes
OTHER_NAMES = {"shortcut": "downsample", "linear": "fc"}  # e.g. in the usual CIFAR repositories
OTHER_NAMES |= {ours: theirs for theirs, ours in OTHER_NAMES.items()}
# (blocks a stage, whether they have a third convolution) -> torchvision's name
BLOCKS: dict[tuple[tuple[int, ...], bool], str] = {
    ((2, 2, 2, 2), False): "resnet18",
    ((3, 4, 6, 3), False): "resnet34",
    ((3, 4, 6, 3), True): "resnet50",
    ((3, 4, 23, 3), True): "resnet101",
    ((3, 8, 36, 3), True): "resnet152",
}
WIDER = {(128, 4, 3, 3): "resnext50_32x4d", (128, 128, 3, 3): "wide_resnet50_2"}


def without_prefix(names: Collection[str], keep: Collection[str] = ()) -> dict[str, str]:
    """`{name: name without the wrappers' prefixes}`; a prefix goes if all names bear it and none in
    `keep` does.

    >>> without_prefix(["module.conv1.weight", "module.fc.bias"])
    {'module.conv1.weight': 'conv1.weight', 'module.fc.bias': 'fc.bias'}
    """
    short = {name: name for name in names}
    found: str | None = ""
    while found is not None:
        short = {name: rest.removeprefix(found) for name, rest in short.items()}
        found = next((p for p in PREFIXES if _all_bear(short, p) and not _any_bears(keep, p)), None)
    return short


def _all_bear(short: Mapping[str, str], prefix: str) -> bool:
    return bool(short) and all(rest.startswith(prefix) for rest in short.values())


def _any_bears(names: Collection[str], prefix: str) -> bool:
    return any(name.startswith(prefix) for name in names)


def match_names(theirs: Collection[str], ours: Collection[str]) -> dict[str, str]:
    """`{name in the file: name in the model}` for those that belong together, each model's name at
    most once.

    >>> match_names(["module.conv1.weight", "module.linear.bias"], ["conv1.weight", "fc.bias"])
    {'module.conv1.weight': 'conv1.weight', 'module.linear.bias': 'fc.bias'}
    """
    ours = set(ours)
    short = without_prefix(theirs, ours)
    found = {name: rest for name, rest in short.items() if rest in ours}
    taken = set(found.values())
    for name, rest in short.items():
        if name not in found:
            other = ".".join(OTHER_NAMES.get(part, part) for part in rest.split("."))
            if other in ours and other not in taken:
                found[name] = other
                taken.add(other)
    return found


def guess(arrays: Mapping[str, Any]) -> str | None:
    """Which ResNet the tensors (file layout) belong to, where that is obvious.

    >>> guess({}) is None
    True
    """
    short = without_prefix(list(arrays))
    shapes = {short[name]: tuple(array.shape) for name, array in arrays.items()}
    blocks: dict[int, set[int]] = {}
    for name in shapes:
        if place := re.match(r"layer([1-9])\.(\d{1,4})\.conv1\.", name):
            blocks.setdefault(int(place[1]), set()).add(int(place[2]))
    counts = tuple(len(blocks[stage]) for stage in sorted(blocks))
    stem = shapes.get("conv1.weight", ())
    if len(stem) != 4 or "bn1.weight" not in shapes or "layer1.0.bn1.weight" not in shapes:
        return None
    deep = "layer1.0.conv3.weight" in shapes
    name = BLOCKS.get((counts, deep))
    if stem[0] == 16 and len(counts) == 3 and len(set(counts)) == 1 and not deep:
        name = f"resnet{6 * counts[0] + 2}"
    elif name == "resnet50" and shapes.get("layer1.0.conv2.weight") in WIDER:
        name = WIDER[shapes["layer1.0.conv2.weight"]]
    elif name is not None:
        bare = not any("downsample." in n or "shortcut." in n for n in shapes)
        name = name.replace("resnet", "plain") if bare else name
        name += f" with the {'imagenet' if stem[2] == 7 else 'cifar'} stem"
    head = shapes.get("fc.weight") or shapes.get("linear.weight") or ()
    return name and name + (f" for {head[0]} classes" if len(head) == 2 else "")
