"""From options to objects: device, network, optimiser, schedule and step of a `TrainConfig`."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from .. import models, optim, random
from ..backend import PRECISIONS, resolve_device, resolve_precision, to_device
from ..kernels import memory
from .config import DEVICES, ConfigError, TrainConfig, flag, unknown
from .finetune import muon_groups, parameter_groups
from .step import TrainStep

__all__ = [
    "MOVABLE",
    "build_model",
    "choose_device",
    "choose_precision",
    "make_model",
    "make_optimizer",
    "make_schedule",
    "make_step",
    "resumed_config",
    "set_threads",
]

# these options may change on resuming
MOVABLE = (
    "data",
    "download",
    "device",
    "threads",
    "save_every",
    "tensorboard",
    "workers",
    "cache_gb",
)


def resumed_config(path: Path, changes: dict[str, Any]) -> TrainConfig:
    """The options in the file `path`, with `changes`. Raises ConfigError for one that is not
    `MOVABLE`.
    """
    config = TrainConfig.load(path)
    for name, value in changes.items():
        if name not in MOVABLE and value != getattr(config, name):
            fixed = f"{flag(name)} is {getattr(config, name)!r} in {path}"
            raise ConfigError(f"--resume: {fixed} and cannot become {value!r}")
    return dataclasses.replace(config, **changes).resolved()


def choose_device(name: str) -> str:
    """Turn auto, cpu or cuda into a device that is there.

    Raises ConfigError with the remedy when there is no GPU.
    """
    if name not in DEVICES:
        raise unknown("--device", name, DEVICES)
    try:
        return resolve_device(name)
    except RuntimeError as error:
        raise ConfigError(f"--device {name}: {error}, or use --device cpu") from None


def choose_precision(name: str, device: str) -> str:
    """`name` if the device has it. Raises ConfigError saying what is missing."""
    if name not in PRECISIONS:
        raise unknown("--precision", name, PRECISIONS)
    try:
        return resolve_precision(name, device)
    except RuntimeError as error:
        raise ConfigError(f"--precision {name}: {error}") from None


def set_threads(count: int | None) -> None:
    """Use `count` CPU threads. Raises ConfigError when there are fewer."""
    if count is None:
        return
    try:
        memory.set_threads(count)
    except ValueError as error:
        raise ConfigError(f"--threads: {error}") from None


def make_model(config: TrainConfig, classes: int, device: str) -> Any:
    """The network, initialised from the seed."""
    random.manual_seed(config.seed)
    return build_model(str(config.model), classes, config.stem).to(device)


def build_model(name: str, classes: int, stem: str | None) -> Any:
    """`models.build`, with ConfigError for a network or stem that there is not."""
    try:
        return models.build(name, classes, stem)
    except ValueError as error:
        raise ConfigError(f"--model: {error}") from None


def make_optimizer(config: TrainConfig, model: Any) -> Any:
    """The optimiser, with the groups of `parameter_groups`."""
    assert config.lr is not None
    assert config.weight_decay is not None
    lr, betas = config.lr, (config.momentum, 0.999)
    muon = config.optimizer == "muon"
    groups = parameter_groups(
        *(model, config.lr_rest if muon else lr, config.weight_decay, config.lr_backbone),
        decay_all=config.decay_all,
        lr_bias=config.lr_bias,
    )
    if muon:
        groups = muon_groups(model, groups, lr, config.lr_rest)
        return optim.Muon(groups, lr, config.momentum, config.nesterov and config.momentum > 0)
    if config.optimizer == "sgd":
        nesterov = config.nesterov and config.momentum > 0
        return optim.SGD(groups, lr, momentum=config.momentum, nesterov=nesterov)
    return (optim.Adam if config.optimizer == "adam" else optim.AdamW)(groups, lr, betas=betas)


def make_schedule(config: TrainConfig, optimizer: Any, steps: int) -> Any:
    """The learning rate by step, for a run of `steps`; call `.step()` after each update.

    onecycle: up for the share `warmup`, then down to nothing along a cosine; triangular: from a
    fifth up, then down to 7 %, along straight lines; cosine and constant: a linear warm-up first;
    step: the same, then a tenth after half and again after three quarters of the steps (He et al.
    2015, section 4.2).
    """
    warmup = float(config.warmup or 0.0)
    if config.schedule == "onecycle" and steps > 1:
        highest = [group["lr"] for group in optimizer.param_groups]
        return optim.OneCycleLR(optimizer, highest, steps, pct_start=warmup)
    if config.schedule == "triangular" and steps > 1:
        highest = [group["lr"] for group in optimizer.param_groups]
        ends = {"div_factor": 5.0, "final_div_factor": 0.2 / 0.07, "anneal_strategy": "linear"}
        return optim.OneCycleLR(optimizer, highest, steps, pct_start=warmup, **ends)
    rising = round(warmup * steps)
    after = optimizer
    if config.schedule == "cosine":
        after = optim.CosineLR(optimizer, max(1, steps - rising))
    elif config.schedule == "step":
        after = optim.MultiStepLR(optimizer, [steps // 2 - rising, steps * 3 // 4 - rising])
    return optim.WarmupLR(after, rising, 0.1 if rising else 1.0)


def make_step(
    config: TrainConfig, model: Any, steps: int, class_weights: Any, device: str
) -> TrainStep:
    """A step of a run of `steps`; class_weights (k,) or None."""
    optimizer = make_optimizer(config, model)
    return TrainStep(
        model,
        optimizer,
        make_schedule(config, optimizer, steps),
        label_smoothing=config.label_smoothing or 0.0,
        class_weights=None if class_weights is None else to_device(class_weights, device),
        clip_norm=config.clip_norm,
        precision=choose_precision(config.precision, device),
    )
