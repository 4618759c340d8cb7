"""Measuring a network on labelled images, and getting one back from a run or a weight file."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from .. import functional as F
from .. import weights
from ..autograd import no_grad
from ..backend import array_module, device_of
from ..data import Dataset, PictureLoader, Pictures, prefetch
from ..errors import DataError, NonFiniteError
from ..optim.sums import Sums
from ..tensor import Tensor
from .config import NORMALIZE, VIEWS, ConfigError, TrainConfig, unknown
from .folder import Card, RunFolder
from .metrics import Tally
from .report import class_report
from .sets import eval_loader, load_split, make_reader, pixel_stats
from .setup import build_model, choose_device, set_threads
from .step import count_correct

__all__ = [
    "Loaded",
    "answer",
    "check_classes",
    "evaluate",
    "evaluate_source",
    "labelled_batches",
    "load_trained",
    "weights_of",
]

WHICH = ("last", "best")


def evaluate(
    model: Any,
    batches: Iterable[tuple[Any, Any]],
    device: str = "cpu",
    after_batch: Callable[[int], None] = lambda count: None,
    confusion: np.ndarray | None = None,
    views: str = "none",
) -> Tally:
    """Mean cross-entropy and accuracy of `model` over `batches` of (images (b, h, w, c), labels
    (b,)).

    The model is left in evaluation mode. `after_batch` gets each batch's size; `confusion`, int64
    (classes, classes), is raised by one an image at [its label, the answer]. `views` is one of
    `VIEWS`, see `answer`. Raises NonFiniteError
    when the loss is NaN or infinite, DataError when there are no images.
    """
    model.eval()
    tally, sums, seen = Tally(), None, []
    for x, target in prefetch(batches, device):
        with no_grad(), np.errstate(all="ignore"):  # what overflows shows in the loss
            logits = answer(model, x, views)
            loss = F.cross_entropy(logits, target)
        if device_of(x) == "cpu":
            tally.add(_finite(loss.item(), tally.total), count_correct(logits, target), len(target))
        else:  # added up there, and read once
            sums = sums or Sums(x)
            sums.add(logits.array, target, loss.array, [])
            tally.total += len(target)
        if confusion is not None:
            seen.append((target.copy(), logits.array.argmax(axis=1)))
        after_batch(len(target))
    if sums is not None:
        found = sums.read()
        _finite(found.loss if found.bad else 0.0, (found.bad - 1) * len(target))
        tally.loss_sum, tally.correct = found.loss_sum, found.correct
    if confusion is not None:
        for labels, answers in seen:
            np.add.at(confusion, (Tensor(labels).numpy(), Tensor(answers).numpy()), 1)
    if not tally.total:
        raise DataError("evaluation: no image could be read")
    return tally


def answer(model: Any, x: Any, views: str = "none") -> Any:
    """The logits of images x (b, h, w, c), or their mean over views.

    flip: the image and its mirror image. shifts: half of these, and half of the image shifted by
    one pixel along the diagonal, both ways and mirrored too.
    """
    if views == "none":
        return model(x)
    both = (model(x) + model(mirrored(x))) * 0.5
    if views == "flip":
        return both
    xp, (h, w) = array_module(x), x.shape[1:3]
    wide = xp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)), mode="reflect")
    shifted = [xp.ascontiguousarray(wide[:, i : i + h, i : i + w]) for i in (0, 2)]
    four = [model(y) for some in shifted for y in (some, mirrored(some))]
    return both * 0.5 + (four[0] + four[1] + four[2] + four[3]) * 0.125


def mirrored(x: Any) -> Any:
    """Images (b, h, w, c), left to right."""
    return array_module(x).ascontiguousarray(x[:, :, ::-1])


def _finite(loss: float, image: int) -> float:
    if not math.isfinite(loss):
        raise NonFiniteError(f"evaluation: the loss is {loss} at image {image} or soon after")
    return loss


@dataclass(frozen=True)
class Loaded:
    """A network in evaluation mode, what is known about it, and where it computes."""

    model: Any
    card: Card
    device: str


def load_trained(
    source: str | Path,
    *,
    model: str | None = None,
    stem: str | None = None,
    dataset: str | None = None,
    normalize: str | None = None,
    classes: Sequence[str] | None = None,
    size: int | None = None,
    which: str = "last",
    device: str = "auto",
    threads: int | None = None,
) -> Loaded:
    """The network of a run folder (its last or best weights), or of a weight file, ours or
    PyTorch's.

    What is given here wins over what the file says; a file that says nothing needs `normalize` or
    `dataset`, and `model` unless its tensors show which one it is. classes: their names. Raises
    DataError for a file that is missing, damaged or of another model, ConfigError for what cannot
    be known.
    """
    _check_options(model=model, stem=stem, dataset=dataset, normalize=normalize, size=size)
    device = choose_device(device)
    set_threads(threads)
    path = Path(source)
    if path.is_dir():
        path = weights_of(path, which)
    file = weights.load_file(path)
    given = {"model": model, "stem": stem, "dataset": dataset, "size": size}
    given = {name: value for name, value in given.items() if value is not None}
    if "arguments" in file.metadata:
        card = dataclasses.replace(Card.from_metadata(file.metadata, path), **given)
    else:
        card = _foreign_card(file, path, given, bool(normalize))
    if classes is not None:
        if len(classes) != len(card.classes):
            count = f"{len(classes)} names, but {path} has {len(card.classes)} classes"
            raise ConfigError(f"--class-names: {count}")
        card = dataclasses.replace(card, classes=list(classes))
    if normalize is not None or not card.mean:
        mean, std = pixel_stats(normalize or "dataset", card.dataset)
        card = dataclasses.replace(card, mean=mean.tolist(), std=std.tolist())
    network = build_model(card.model, len(card.classes), card.stem)
    weights.load(network, path)
    return Loaded(network.to(device).eval(), card, device)


def evaluate_source(
    source: str | Path,
    *,
    dataset: str | None = None,
    data: str | None = None,
    download: bool = False,
    split: str = "test",
    limit: int | None = None,
    report: bool = False,
    views: str = "none",
    after_batch: Callable[[int], None] = lambda count: None,
    **options: Any,
) -> dict[str, Any]:
    """Accuracy, number of right answers, number of images and mean loss of a run or weight file on
    a data set; with `report` also what `class_report` says. `views` are those of `answer`.

    `options` are those of `load_trained`. The data set is the one that the network was trained on,
    unless given.
    """
    if views not in VIEWS:
        raise unknown("--views", views, VIEWS)
    loaded = load_trained(source, dataset=dataset, **options)
    card = loaded.card
    options = {"data": data, "split": split, "limit": limit, "download": download}
    with labelled_batches(source, card, **options) as (images, batches):
        check_classes(card, images)
        counts = np.zeros((len(card.classes),) * 2, np.int64) if report else None
        tally = evaluate(loaded.model, batches, loaded.device, after_batch, counts, views)
    by_class = {} if counts is None else class_report(counts, images.classes)
    skipped = {"skipped": batches.skipped} if isinstance(batches, PictureLoader) else {}
    return {
        "accuracy": tally.accuracy,
        "correct": tally.correct,
        "total": tally.total,
        "loss": tally.loss,
        **by_class,
        **skipped,
    }


@contextmanager
def labelled_batches(
    source: str | Path,
    card: Card,
    *,
    data: str | None = None,
    split: str = "test",
    limit: int | None = None,
    download: bool = False,
) -> Iterator[tuple[Any, Any]]:
    """The images that the network of `card` is for, and their batches; `data` is by default the
    folder that the run `source` took them from.

    Raises ConfigError when the card names no data set.
    """
    if not card.dataset:
        raise ConfigError(f"{source}: does not say which data it is for; give --dataset NAME")
    run = RunFolder(source).config
    config = TrainConfig.load(run) if run.is_file() else TrainConfig(cache_pictures="none")
    images = load_split(card.dataset, data or config.data, split, limit, download, config)
    files = isinstance(images, Pictures)
    with make_reader(config, fill=False) if files else nullcontext() as reader:
        yield images, eval_loader(images, card.mean, card.std, card.size, reader)


def check_classes(card: Card, images: Dataset | Pictures) -> None:
    """Raise DataError when the network and the data set differ in the number of classes."""
    if len(card.classes) != len(images.classes):
        here = f"{card.model} with {len(card.classes)} classes"
        raise DataError(
            f"{images.name} has {len(images.classes)} classes, the weights are of {here}"
        )


def _check_options(size: int | None, **options: Any) -> None:
    """What is given must be what training would take."""
    TrainConfig(**{name: value for name, value in options.items() if value is not None}).check()
    if size is not None and size < 1:
        raise ConfigError(f"--size: must be at least 1, got {size}")


def weights_of(path: Path, which: str) -> Path:
    """The last or best weight file of a run folder."""
    if which not in WHICH:
        raise unknown("--which", which, WHICH)
    file = RunFolder(path).best if which == "best" else RunFolder(path).last
    if not file.exists():
        raise DataError(f"{path}: not a run folder with weights: it has no {file.name}")
    return file


def _foreign_card(file: Any, path: Path, given: dict[str, Any], normalized: bool) -> Card:
    """What the caller says about a file that says nothing about itself, and what its tensors look
    like.
    """
    like = weights.guess(file.arrays)
    if "model" not in given and like is None:
        raise ConfigError(f"{path}: does not say which network it is of; give --model NAME")
    if "dataset" not in given and not normalized:
        choices = ", ".join(NORMALIZE)
        raise ConfigError(
            f"{path}: does not say how to normalise images; give --normalize: {choices}"
        )
    outputs = [array.shape[0] for array in file.arrays.values() if array.ndim == 2]
    classes = [str(k) for k in range(outputs[-1] if outputs else 10)]
    if like is None:
        large, model = len(classes) == 1000, ""
    else:
        large, model = like.stem == "imagenet", like.model
    known = {"model": model, "classes": classes, "mean": (), "std": ()}
    known |= {"stem": None if large else "cifar", "size": 224 if large else 32}
    return Card(**{**known, **given})
