"""What a trained network sees in picture files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from .. import functional as F
from ..autograd import no_grad
from ..backend import to_device
from ..data import normalise
from ..errors import DataError
from .evaluate import Loaded

__all__ = ["predict", "read_image"]

BATCH = 64  # pictures that go through the network together


def read_image(path: str | Path, size: int) -> np.ndarray:
    """A picture file as uint8 (size, size, 3).

    The shorter side is resized to `size` pixels (bicubic, antialiased) and the middle square is cut
    out, so proportions stay; grey and palette pictures become RGB, transparency becomes white, and
    a camera's rotation mark is obeyed. Raises DataError for a file that is missing or no picture.
    """
    from PIL import (
        Image,
        ImageOps,
        UnidentifiedImageError,
    )  # lazily: only predicting needs pictures

    try:
        with Image.open(path) as file:
            image = ImageOps.exif_transpose(file)
            if image.has_transparency_data:
                layer = image.convert("RGBA")
                image = Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer)
            image = ImageOps.fit(image.convert("RGB"), (size, size), Image.Resampling.BICUBIC)
    except UnidentifiedImageError:
        raise DataError(f"{path}: not a picture that Pillow can read") from None
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        reason = getattr(error, "strerror", None) or error
        raise DataError(f"{path}: cannot read this picture: {reason}") from None
    return np.asarray(image)


def predict(loaded: Loaded, paths: Sequence[str | Path], top: int = 5) -> list[dict[str, Any]]:
    """The `top` likeliest classes of each picture file, likeliest first.

    Returns [{"file": …, "predictions": [{"class": …, "probability": 0-1}, …]}, …] in the order of
    `paths`.
    """
    card, found = loaded.card, []
    for start in range(0, len(paths), BATCH):
        some = paths[start : start + BATCH]
        images = np.stack([read_image(path, card.size) for path in some])
        x = to_device(normalise(images, card.mean, card.std), loaded.device)
        with no_grad():
            probabilities = F.softmax(loaded.model.eval()(x)).to("cpu").numpy()
        for path, row in zip(some, probabilities, strict=True):
            order = np.argsort(-row, kind="stable")[:top]
            classes = [
                {"class": str(card.classes[k]), "probability": round(float(row[k]), 6)}
                for k in order
            ]
            found.append({"file": str(path), "predictions": classes})
    return found
