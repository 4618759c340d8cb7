"""What a trained network sees in picture files, and the features by which it tells them apart."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from .. import functional as F
from ..autograd import no_grad
from ..backend import to_device
from ..errors import DataError
from .evaluate import Loaded
from .pictures import picture_batches

__all__ = ["embed", "predict"]


def predict(
    loaded: Loaded,
    paths: Sequence[str | Path],
    top: int = 5,
    skipped: dict[str, str] | None = None,
) -> list[dict[str, Any]]:
    """The `top` likeliest classes of each picture, likeliest first.

    Returns [{"file": …, "predictions": [{"class": …, "probability": 0-1}, …]}, …] in the order of
    `paths`; for folders in these, and `skipped`, see `picture_batches`.
    """
    found = []
    for files, images in picture_batches(loaded.card, paths, skipped):
        with no_grad():
            logits = loaded.model.eval()(to_device(images, loaded.device))
            probabilities = F.softmax(logits).numpy()
        for file, row in zip(files, probabilities, strict=True):
            order = np.argsort(-row, kind="stable")[:top]
            classes = [
                {"class": str(loaded.card.classes[k]), "probability": round(float(row[k]), 6)}
                for k in order
            ]
            found.append({"file": file, "predictions": classes})
    return found


def embed(
    loaded: Loaded,
    batches: Iterable[Any],
    after_batch: Callable[[int], None] = lambda count: None,
) -> np.ndarray:
    """The pooled features of images, float32 (n, c): what the classifier sees.

    batches: arrays (b, h, w, 3), prepared for the network. Raises DataError when there are none.
    """
    found = []
    for images in batches:
        with no_grad():
            vectors = loaded.model.eval().embed(to_device(images, loaded.device))
        found.append(vectors.numpy())
        after_batch(len(images))
    if not found:
        raise DataError("embed: no images")
    return np.concatenate(found)
