"""Training, measuring and using a network: what the `minires` command does, from Python.

from minires.train import TrainConfig, Trainer, evaluate_source, load_trained, predict, train

summary = train(dataset="shapes", epochs=3)               # or Trainer(TrainConfig(...), out).run()
evaluate_source(summary["out"])["accuracy"]
predict(load_trained(summary["out"]), ["cat.png"])
"""

from .checkpoint import load_checkpoint, save_checkpoint
from .compare import compare_runs
from .config import DEFAULTS, ConfigError, TrainConfig
from .evaluate import Loaded, evaluate, evaluate_source, load_trained
from .info import describe_model, describe_plan, describe_system
from .metrics import Position, Tally
from .pictures import find_pictures, picture_batches, read_image
from .plots import draw_confusion
from .predict import embed, predict
from .recipes import Recipe, load_recipe, recipe_names
from .report import class_report, format_report
from .sets import Sets, load_sets, split_sets
from .trainer import Trainer, train
from .watch import Interrupted, Watch

__all__ = [
    "DEFAULTS",
    "ConfigError",
    "Interrupted",
    "Loaded",
    "Position",
    "Recipe",
    "Sets",
    "Tally",
    "TrainConfig",
    "Trainer",
    "Watch",
    "class_report",
    "compare_runs",
    "describe_model",
    "describe_plan",
    "describe_system",
    "draw_confusion",
    "embed",
    "evaluate",
    "evaluate_source",
    "find_pictures",
    "format_report",
    "load_checkpoint",
    "load_recipe",
    "load_sets",
    "load_trained",
    "picture_batches",
    "predict",
    "read_image",
    "recipe_names",
    "save_checkpoint",
    "split_sets",
    "train",
]
