"""What a training run is made of: every option once, with its help, its choices and its defaults
for each data set.

`minires train --help` is printed from these fields, and `config.json` holds them. A field left at
`None` takes its data set's value from `DEFAULTS`, so a bare `minires train` and `minires train
--dataset cifar10` are both sensible.
"""

from __future__ import annotations

import dataclasses
import difflib
import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .. import models
from ..backend import PRECISIONS

__all__ = ["DEFAULTS", "ConfigError", "TrainConfig", "flag", "kind", "unknown"]

DATASETS = ("shapes", "cifar10", "cifar100", "folder")
NORMALIZE = ("dataset", "imagenet", "half", "none")
SCHEDULES = ("onecycle", "triangular", "cosine", "step", "constant")
VIEWS = ("none", "flip", "shifts")
OPTIMIZERS = ("sgd", "muon", "adam", "adamw")
STEMS = ("cifar", "imagenet")
DEVICES = ("auto", "cpu", "cuda")
ON_BAD = ("skip", "stop")
CLASS_WEIGHTS = ("none", "balanced")
NEEDS = {"reset_head": "init", "freeze": "init", "freeze_bn": "init", "unfreeze_every": "freeze"}

# One column an option, one row a data set; "lr" is for the row's optimizer and batch size.
_COLUMNS = (
    *("model", "stem", "epochs", "batch_size"),
    *("optimizer", "lr", "weight_decay"),
    *("schedule", "warmup", "augment", "label_smoothing"),
)
DEFAULTS: dict[str, dict[str, Any]] = {
    name: dict(zip(_COLUMNS, row, strict=True))
    for name, row in {
        #          model   stem  epochs batch optim   lr   decay  schedule warmup augment smoothing
        "shapes": ("resnet20", "cifar", 4, 32, "adamw", 3e-3, 5e-4, "onecycle", 0.1, False, 0.0),
        "cifar10": ("resnet20", "cifar", 30, 128, "sgd", 0.2, 5e-4, "onecycle", 0.3, True, 0.0),
        "cifar100": ("resnet20", "cifar", 30, 128, "sgd", 0.2, 5e-4, "onecycle", 0.3, True, 0.0),
        "folder": ("resnet18", "imagenet", 10, 32, "adamw", 1e-3, 0.05, "onecycle", 0.2, True, 0.1),
    }.items()
}
SHORT = 10  # epochs; so few learn more from images that are shifted less
CROP = {True: 2, False: 4}  # pixels: in a short run or not
USUAL_LR = {
    "sgd": 0.1,
    "muon": 0.05,
    "adam": 1e-3,
    "adamw": 1e-3,
}  # of an optimizer that is not the row's


class ConfigError(ValueError):
    """An option whose value cannot be meant; the message names the value and what was expected."""


def unknown(what: str, value: object, choices: Iterable[str]) -> ConfigError:
    """The error for a value that is none of `choices`, with the closest of them.

    >>> print(unknown("--schedule", "cosin", ["cosine", "step"]))
    --schedule: unknown value 'cosin', did you mean 'cosine'? Choices: cosine, step
    """
    choices = list(choices)
    close = difflib.get_close_matches(str(value), choices, n=1, cutoff=0.5)
    hint = f", did you mean {close[0]!r}?" if close else "."
    return ConfigError(f"{what}: unknown value {value!r}{hint} Choices: {', '.join(choices)}")


def _option(default: Any, text: str, **more: Any) -> Any:
    return dataclasses.field(default=default, metadata={"help": text, **more})


@dataclass(frozen=True)
class TrainConfig:
    """Everything that decides a run. Frozen: `resolved()` and `dataclasses.replace` make new ones.

    Raises ConfigError from `resolved()` when a value is unknown or out of range.

    >>> config = TrainConfig(dataset="cifar10", epochs=5).resolved()
    >>> config.model, config.epochs, config.batch_size
    ('resnet20', 5, 128)
    """

    dataset: str = _option("shapes", "images to learn; shapes is built in", choices=DATASETS)
    data: str | None = _option(
        None, "folder of the data set, or its parent ($MINIRES_DATA)", of="DIR"
    )
    download: bool = _option(False, "fetch the data set into --data when it is missing")
    normalize: str = _option("dataset", "mean and deviation to normalise with", choices=NORMALIZE)
    model: str | None = _option(None, "network; minires info --models lists them", of="NAME")
    stem: str | None = _option(
        None, "first layers; cifar keeps small pictures large", choices=STEMS
    )
    whiten: bool | None = _option(
        None,
        "start the first convolution by what makes the pixels of a patch uncorrelated "
        "(whitened_resnet: True, others: False)",
    )
    init: str | None = _option(None, "start from the weights in this file", of="FILE")
    reset_head: bool = _option(False, "with a new last layer, for classes of your own")
    freeze: str | None = _option(
        None, "leave all up to this stage as it is: stem, layer1, ...", of="STAGE"
    )
    unfreeze_every: int | None = _option(
        None, "after every N epochs free a frozen stage, the last first", least=1
    )
    freeze_bn: bool = _option(False, "keep the statistics of every BatchNorm as they are")
    lr_backbone: float = _option(
        1.0, "times this, the learning rate of all but the last layer", above=0
    )
    epochs: int | None = _option(None, "times through the training images", least=1)
    batch_size: int | None = _option(None, "images a step", least=1)
    optimizer: str | None = _option(None, "update rule", choices=OPTIMIZERS)
    lr: float | None = _option(None, "highest learning rate", above=0)
    lr_rest: float = _option(
        0.2, "muon: learning rate of all but the weights of convolutions", above=0
    )
    momentum: float = _option(0.9, "momentum of sgd and muon, and first beta of adam", below=1)
    nesterov: bool = _option(True, "the momentum of sgd and muon in Nesterov's form")
    weight_decay: float | None = _option(
        None, "weight decay; not of BatchNorms and biases", least=0
    )
    decay_all: bool = _option(False, "weight decay of BatchNorms and biases too")
    schedule: str | None = _option(None, "course of the learning rate", choices=SCHEDULES)
    warmup: float | None = _option(None, "share of the steps that the rate rises", least=0, below=1)
    lr_bias: float = _option(
        1.0, "times this, the learning rate of the biases of BatchNorms", above=0
    )
    lookahead: int | None = _option(
        None, "every N steps go back to a moving average of all weights", least=1
    )
    clip_norm: float | None = _option(None, "scale gradients down to this norm", above=0)
    label_smoothing: float | None = _option(
        None, "share of the target given to all classes", least=0, below=1
    )
    class_weights: str = _option(
        "none", "weight of a class in the loss; balanced helps rare ones", choices=CLASS_WEIGHTS
    )
    augment: bool | None = _option(
        None, "shift (folder: crop and colour) and flip the training images"
    )
    crop: int | None = _option(
        None, f"shift by up to N pixels when augmenting (4; up to {SHORT} epochs 2)", least=0
    )
    reflect: bool = _option(False, "shift mirrored pixels in, not black ones")
    flip: bool = _option(True, "mirror images when augmenting")
    alternate_flip: bool = _option(False, "mirror half of them, and the others an epoch later")
    cutout: int = _option(0, "side of a square cut out of each training image, pixels", least=0)
    test_views: str = _option(
        "none",
        "also test the mean answer to each image and its mirror image; shifts: and both shifted",
        choices=VIEWS,
    )
    val_fraction: float = _option(
        0.1, "share of the training images kept to choose by", least=0, below=1
    )
    early_stopping: int | None = _option(
        None,
        "stop after N epochs without a lower validation loss, and go back to the lowest",
        least=1,
    )
    limit: int | None = _option(None, "use only N images of each split", least=2)
    seed: int = _option(0, "seed of everything random", least=0)
    device: str = _option(
        "auto", "where to compute; auto takes a GPU if there is one", choices=DEVICES
    )
    precision: str = _option(
        "float32",
        "of the numbers that convolutions multiply in training (tf32, fp16: GPUs)",
        choices=PRECISIONS,
    )
    threads: int | None = _option(None, "CPU threads (all by default)", least=1)
    dead_relus: bool = _option(
        False, "after every epoch measure the share of ReLU channels that are 0 for all images"
    )
    tensorboard: bool = _option(False, "write event files into the run folder too")
    save_every: float = _option(
        300.0, "seconds between checkpoints inside an epoch; every epoch ends with one", above=0
    )
    image_size: int = _option(224, "folder: side that pictures get, pixels", least=8)
    crop_area: float = _option(
        0.08, "folder: smallest share of a picture that a random crop has", above=0, most=1
    )
    color_jitter: float = _option(
        0.2, "folder: change brightness, contrast and saturation up to this share", least=0, most=1
    )
    test_fraction: float = _option(
        0.1, "folder: share of the pictures for the test, without test/", least=0, below=1
    )
    workers: int | None = _option(
        None, "folder: processes that decode, 0 for none (one a core)", least=0
    )
    on_bad_picture: str = _option(
        "skip", "folder: what to do with one that cannot be read", choices=ON_BAD
    )
    max_megapixels: float = _option(100.0, "folder: larger pictures count as such", above=0)
    cache_pictures: str | None = _option(
        None,
        "folder: where to keep shrunken copies of large pictures, none for no copies "
        "($XDG_CACHE_HOME/minires/pictures)",
        of="DIR|none",
    )
    cache_gb: float = _option(4.0, "folder: most that all copies there take, gigabytes", above=0)

    def resolved(self) -> TrainConfig:
        """The same with every `None` that has a default filled in, and every value checked."""
        self.check()
        usual = dict(DEFAULTS[self.dataset])
        if self.optimizer not in (None, usual["optimizer"]):
            usual["lr"] = USUAL_LR[self.optimizer]
        if self.dataset != "folder":
            usual["crop"] = CROP[(self.epochs or usual["epochs"]) <= SHORT]
        usual["whiten"] = self.model == "whitened_resnet" and self.init is None
        missing = {name: value for name, value in usual.items() if getattr(self, name) is None}
        return dataclasses.replace(self, **missing)

    def check(self) -> None:
        """Raise ConfigError for the first value of a wrong kind, unknown or out of range."""
        for field in dataclasses.fields(self):
            _check(field, getattr(self, field.name))
        known = self.model is None or self.model in models.names()
        if not known and not str(self.model).startswith("wide_resnet"):  # those have numbers to it
            raise unknown("--model", self.model, models.names())
        self._check_folder()
        folder = self.dataset == "folder"  # may have val/
        if self.early_stopping is not None and self.val_fraction == 0 and not folder:
            raise ConfigError("--early-stopping: needs a validation split, but --val-fraction is 0")
        if self.whiten and self.init is not None:
            raise ConfigError(f"--whiten: the first convolution comes from --init {self.init}")
        for name, needed in NEEDS.items():
            if getattr(self, name) not in (None, False) and getattr(self, needed) is None:
                raise ConfigError(f"{flag(name)}: means nothing without {flag(needed)}")

    def _check_folder(self) -> None:
        """Raise ConfigError for an option of folders without one, or one that they do not have."""
        if self.dataset == "folder":
            for name in ("crop", "cutout", "reflect", "alternate_flip"):
                if getattr(self, name):
                    raise ConfigError(f"{flag(name)}: not for --dataset folder")
            if self.val_fraction + self.test_fraction >= 1:
                both = f"{self.val_fraction} + {self.test_fraction}"
                raise ConfigError(f"--val-fraction, --test-fraction: {both} leaves none to train")
            return
        for field in dataclasses.fields(self):
            is_of_folders = field.metadata["help"].startswith("folder:")
            if is_of_folders and getattr(self, field.name) != field.default:
                raise ConfigError(f"{flag(field.name)}: only for --dataset folder")

    def to_dict(self) -> dict[str, Any]:
        """Plain values, ready for JSON."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], source: str = "config") -> TrainConfig:
        """The inverse of `to_dict`. Raises ConfigError naming `source` for an unknown field."""
        names = [field.name for field in dataclasses.fields(cls)]
        for name in values:
            if name not in names:
                raise unknown(f"{source}: option", name, names)
        config = cls(**values)
        config.check()
        return config

    @classmethod
    def load(cls, path: str | Path) -> TrainConfig:
        """Read the `config.json` of a run folder (or any JSON object of fields)."""
        try:
            values = json.loads(Path(path).read_text(encoding="utf-8"))
        except UnicodeDecodeError as error:
            raise ConfigError(f"{path}: not a text file: {error}") from None
        except json.JSONDecodeError as error:
            raise ConfigError(f"{path}: not a JSON file: {error}") from None
        if not isinstance(values, dict):
            raise ConfigError(f"{path}: expected a JSON object, got {type(values).__name__}")
        return cls.from_dict(values.get("config", values), source=str(path))


def flag(name: str) -> str:
    """The command-line name of a field: `batch_size` -> `--batch-size`."""
    return "--" + name.replace("_", "-")


def kind(field: dataclasses.Field[Any]) -> type:
    """The Python type of a field's values, beside None."""
    return {"int": int, "float": float, "bool": bool}.get(str(field.type).split(" ")[0], str)


def _check(field: dataclasses.Field[Any], value: Any) -> None:
    name, rules = flag(field.name), field.metadata
    if value is None and "None" in str(field.type):
        return
    expected = kind(field)
    fits = isinstance(value, (int, float) if expected is float else expected)
    if not fits or (isinstance(value, bool) and expected is not bool):
        raise ConfigError(f"{name}: expected {expected.__name__}, got {value!r}")
    if "choices" in rules and value not in rules["choices"]:
        raise unknown(name, value, rules["choices"])
    if expected is float and not math.isfinite(float(value or 0)):
        raise ConfigError(f"{name}: must be finite, got {value}")
    if "least" in rules and value < rules["least"]:
        raise ConfigError(f"{name}: must be at least {rules['least']}, got {value}")
    if "above" in rules and value <= rules["above"]:
        raise ConfigError(f"{name}: must be above {rules['above']}, got {value}")
    if "most" in rules and value > rules["most"]:
        raise ConfigError(f"{name}: must be at most {rules['most']}, got {value}")
    if "below" in rules and value >= rules["below"]:
        raise ConfigError(f"{name}: must be below {rules['below']}, got {value}")
