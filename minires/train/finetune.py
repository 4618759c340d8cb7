"""Going on from weights that are there: where they come from, which stay as they are, and how fast
the others learn.

A network has stages: the stem, layer1, layer2, …, and its head, the last linear layer. A frozen
stage has no gradients and is in evaluation mode, so neither its weights nor its running statistics
move, and backward ends before it.
"""

from __future__ import annotations

import dataclasses
from typing import Any

from .. import nn, optim, weights
from .config import TrainConfig, unknown
from .folder import Card

__all__ = [
    "Freezing",
    "load_init",
    "muon_groups",
    "parameter_groups",
    "stages_of",
    "with_network_of_init",
]

HEAD = "fc"


def stages_of(model: nn.Module) -> dict[str, list[nn.Module]]:
    """The stages before the head that have weights, in order, each with its modules.

    What comes between the last stage and the head (a pre-activation network's BatchNorm) counts as
    part of that stage.

    >>> from minires import models
    >>> list(stages_of(models.resnet20()))
    ['stem', 'layer1', 'layer2', 'layer3']
    """
    stages: dict[str, list[nn.Module]] = {"stem": []}
    stage = "stem"
    for name, module in model.named_children():
        if name == HEAD:
            continue
        if name.startswith("layer"):
            stage = name
        stages.setdefault(stage, []).append(module)
    return {
        name: modules
        for name, modules in stages.items()
        if any(True for module in modules for _ in module.parameters())
    }


class Freezing:
    """What of a network stays as it is in which epoch.

    until: the last frozen stage, or None. every: epochs after which one stage more is free, the
    last first, or None. statistics: whether every BatchNorm keeps its running statistics and
    normalises with them. Raises ConfigError for a stage that the network does not have.
    """

    def __init__(
        self,
        model: nn.Module,
        until: str | None = None,
        every: int | None = None,
        statistics: bool = False,
    ) -> None:
        self.model, self.every, self.statistics = model, every, statistics
        self.stages = stages_of(model)
        if until is not None and until not in self.stages:
            raise unknown("--freeze", until, self.stages)
        self.count = 0 if until is None else list(self.stages).index(until) + 1

    def frozen(self, epoch: int) -> list[str]:
        """The stages that are frozen in an epoch, counted from 0."""
        freed = epoch // self.every if self.every else 0
        return list(self.stages)[: max(self.count - freed, 0)]

    def train(self, epoch: int) -> None:
        """Put the network into training mode, but for what is frozen in this epoch."""
        self.model.train()
        frozen = self.frozen(epoch)
        for name, modules in self.stages.items():
            for module in modules:
                module.train(name not in frozen).requires_grad_(name not in frozen)
        for p in getattr(self.model, "fixed", list)():
            p.requires_grad = False
        if self.statistics:
            for module in self.model.modules():
                if isinstance(module, nn.BatchNorm2d):
                    module.eval()


def parameter_groups(
    model: nn.Module,
    lr: float,
    weight_decay: float,
    lr_backbone: float = 1.0,
    *,
    decay_all: bool = False,
    lr_bias: float = 1.0,
) -> list[dict[str, Any]]:
    """Groups for an optimiser: decay off BatchNorms and biases unless `decay_all`, all but the head
    at `lr * lr_backbone` (the head's groups come first), and the biases of BatchNorms at `lr_bias`
    times that.

    >>> from minires import models
    >>> groups = parameter_groups(models.resnet20(), 0.1, 5e-4, lr_backbone=0.5)
    >>> [(g["lr"], g["weight_decay"], len(g["params"])) for g in groups]
    [(0.1, 0.0005, 1), (0.1, 0.0, 1), (0.05, 0.0005, 19), (0.05, 0.0, 38)]
    """
    groups = optim.no_decay_groups(model, weight_decay)
    if decay_all:
        groups = [{"params": list(model.parameters()), "weight_decay": weight_decay}]
    if lr_backbone != 1:
        head = {id(p) for name, p in model.named_parameters() if name.startswith(HEAD + ".")}
        groups = _divided(groups, lr, head, (1.0, lr_backbone))
    if lr_bias != 1:
        norms = [m for m in model.modules() if isinstance(m, nn.BatchNorm2d)]
        others = {id(p) for p in model.parameters()} - {id(norm.bias) for norm in norms}
        groups = _divided(groups, lr, others, (1.0, lr_bias))
    return groups


def muon_groups(
    model: nn.Module, groups: list[dict[str, Any]], lr: float, lr_rest: float
) -> list[dict[str, Any]]:
    """Those of `parameter_groups` at `lr_rest`, for `optim.Muon`: the weights of convolutions apart
    and first, at `lr` instead.

    >>> from minires import models
    >>> net = models.resnet20()
    >>> groups = muon_groups(net, parameter_groups(net, 0.2, 5e-4), 0.05, 0.2)
    >>> [(g["lr"], g["orthogonal"], len(g["params"])) for g in groups]
    [(0.05, True, 19), (0.2, False, 1), (0.2, False, 39)]
    """
    convs = {id(m.weight) for m in model.modules() if isinstance(m, nn.Conv2d)}
    parts = _divided(groups, lr_rest, convs, (lr / lr_rest, 1.0))
    return [{**part, "orthogonal": id(part["params"][0]) in convs} for part in parts]


def _divided(
    groups: list[dict[str, Any]], lr: float, first: set[int], factors: tuple[float, float]
) -> list[dict[str, Any]]:
    """Every group in two: the parameters in `first` (by id), and then all others; their rates are
    times `factors`.
    """
    parts = []
    for inside, factor in zip((True, False), factors, strict=True):
        for group in groups:
            params = [p for p in group["params"] if (id(p) in first) is inside]
            parts.append({**group, "lr": group.get("lr", lr) * factor, "params": params})
    return [part for part in parts if part["params"]]


def with_network_of_init(config: TrainConfig) -> TrainConfig:
    """The options with the network that the weights of `init` are of, where `config` names none:
    the one that the file names, or that its tensors look like.

    Raises DataError when the file is missing or damaged.
    """
    if config.init is None or config.model is not None:
        return config
    file = weights.load_file(config.init)
    if "arguments" in file.metadata:
        known: Card | weights.Guess | None = Card.from_metadata(file.metadata, config.init)
    else:
        known = weights.guess(file.arrays)
    if known is None:
        return config
    return dataclasses.replace(config, model=known.model, stem=config.stem or known.stem)


def load_init(model: Any, config: TrainConfig) -> str | None:
    """Read the weights of `init` into the network; a line that says what fitted, None without.

    Raises DataError when the file is missing, damaged, or of another network or number of classes.
    """
    if config.init is None:
        return None
    report = weights.load(model, config.init, reset_head=config.reset_head)
    return f"starting from {config.init}: {report}"
