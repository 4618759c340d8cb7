"""Names of tensors in files and in models: wrappers' prefixes, repositories' habits, and a guess at
what a file is."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

__all__ = ["AVERAGED", "Guess", "guess", "match_names", "usual", "without_prefix"]

# DataParallel, torch.compile, wrapper classes, detectors and self-supervised learners
PREFIXES = ("module.", "_orig_mod.", "model.", "net.", "backbone.", "encoder.")
AVERAGED = "n_averaged"  # a count beside the weights in PyTorch's AveragedModel, without prefix
# How repositories call what torchvision calls otherwise, tried in this order
HABITS: list[tuple[re.Pattern[str], str | Callable[[re.Match[str]], str]]] = [
    (re.compile(r"\bconvShortcut\."), "downsample.0."),  # WideResNet-pytorch
    (re.compile(r"\bblock(\d)\.layer\."), r"layer\1."),
    (re.compile(r"^bn\."), "bn1."),
    (re.compile(r"\bshortcut\b"), "downsample"),  # pytorch-cifar, and many that followed it
    (re.compile(r"\b(linear|classifier)\b"), "fc"),
    (re.compile(r"^conv1\.0\."), "conv1."),  # pytorch-cifar100
    (re.compile(r"^conv1\.1\."), "bn1."),
    (re.compile(r"^conv([2-5])_x\."), lambda found: f"layer{int(found[1]) - 1}."),
    (re.compile(r"\bresidual_function\.([013467])\."), lambda found: _third(int(found[1]))),
]
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
    names = [rest for rest in short.values() if rest != AVERAGED]
    return bool(names) and all(rest.startswith(prefix) for rest in names)


def _any_bears(names: Collection[str], prefix: str) -> bool:
    return any(name.startswith(prefix) for name in names)


def _third(index: int) -> str:
    """Convolution, BatchNorm, ReLU, and again: the modules of an `nn.Sequential` by number."""
    return f"{'bn' if index % 3 else 'conv'}{index // 3 + 1}."


def usual(name: str) -> str:
    """A tensor's name as torchvision would have it, where its repository has a habit of its own.

    >>> usual("layer1.0.shortcut.1.bias"), usual("conv3_x.0.residual_function.4.weight")
    ('layer1.0.downsample.1.bias', 'layer2.0.bn2.weight')
    """
    for pattern, replacement in HABITS:
        name = pattern.sub(replacement, name)
    return name


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
    free = {usual(name): name for name in ours if name not in taken}
    for name, rest in short.items():
        if name not in found and usual(rest) in free:
            found[name] = free.pop(usual(rest))
    return found


@dataclass(frozen=True)
class Guess:
    """A network as `models.build(model, classes, stem, **options)` would make it."""

    model: str
    classes: int | None
    stem: str | None = None
    options: dict[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        stem = f" with the {self.stem} stem" if self.stem else ""
        return self.model + stem + (f" for {self.classes} classes" if self.classes else "")


def guess(arrays: Mapping[str, Any]) -> Guess | None:
    """Which ResNet the tensors (file layout) belong to, where that is obvious.

    >>> guess({}) is None
    True
    """
    short = {usual(rest): name for name, rest in without_prefix(list(arrays)).items()}
    shapes = {rest: tuple(arrays[name].shape) for rest, name in short.items()}
    blocks: dict[int, set[int]] = {}
    for name in shapes:
        if place := re.match(r"layer([1-9])\.(\d{1,4})\.conv1\.", name):
            blocks.setdefault(int(place[1]), set()).add(int(place[2]))
    counts = tuple(len(blocks[stage]) for stage in sorted(blocks))
    stem, head = shapes.get("conv1.weight", ()), shapes.get("fc.weight", ())
    normed = shapes.get("bn1.weight") == stem[:1] and "layer1.0.bn1.weight" in shapes
    if len(stem) != 4 or not normed:  # with pre-activation bn1 has the last stage's channels
        return None
    classes = head[0] if len(head) == 2 else None
    deep = "layer1.0.conv3.weight" in shapes
    bare = not any(".downsample." in name for name in shapes)
    if stem[0] == 16 and len(counts) == 3 and len(set(counts)) == 1 and not deep:
        name = f"resnet{6 * counts[0] + 2}"
        return Guess(name, classes, options={} if bare else {"shortcut": "B"})
    name = BLOCKS.get((counts, deep))
    if name == "resnet50":
        name = WIDER.get(shapes.get("layer1.0.conv2.weight", ()), name)
    if name is not None:
        name = name.replace("resnet", "plain") if bare else name
        return Guess(name, classes, "imagenet" if stem[2] == 7 else "cifar")
    return None
