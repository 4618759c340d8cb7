"""A trained network for other programs: weights as safetensors or .pth, the network as ONNX."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .. import models, weights
from ..weights import Guess, WeightFile
from .config import ConfigError, unknown
from .evaluate import weights_of
from .folder import Card

__all__ = ["FORMATS", "export"]

FORMATS = ("onnx", "safetensors", "pth")


def export(
    source: str | Path,
    to: str,
    output: str | Path | None = None,
    *,
    fold: bool = False,
    opset: int | None = None,
    model: str | None = None,
    stem: str | None = None,
    size: int | None = None,
    which: str = "last",
) -> dict[str, Any]:
    """Write the network of a run folder (its last or best weights) or weight file for others.

    to: "onnx", "safetensors" or "pth". output: beside the weights unless given. fold, opset: of
    `weights.save_onnx`. model, stem: for a file that does not say which network it is of; the usual
    ResNets are recognised. size: of ONNX's images in pixels, that of training unless given. What
    the file says about itself goes along, but for .pth, which has no place for it.

    Returns {"output", "format", "model", "classes", "bytes", "loaded": how the file fitted}. Raises
    DataError for a file that is missing, damaged or of another model, ConfigError for what cannot
    be.
    """
    if to not in FORMATS:
        raise unknown("--to", to, FORMATS)
    if to != "onnx" and (fold or opset is not None or size is not None):
        raise ConfigError(f"--fold, --opset and --size: only for --to onnx, not {to}")
    path = Path(source)
    path = weights_of(path, which) if path.is_dir() else path
    target = path.with_suffix(f".{to}") if output is None else Path(output)
    file = weights.load_file(path)
    if target.resolve() == path.resolve():
        raise ConfigError(f"--output: {target} is the file that is read; name another")
    found = _identify(file, model, stem)
    try:
        network = models.build(found.model, found.classes or 1, found.stem, **found.options)
    except ValueError as error:
        raise ConfigError(f"--model: {error}") from None
    report = weights.load(network, file)
    metadata = file.metadata or {"model": found.model}
    if to == "onnx":
        try:
            weights.save_onnx(
                network,
                target,
                size=found.size if size is None else size,
                fold=fold,
                opset=opset,
                metadata=metadata,
            )
        except ValueError as error:
            raise ConfigError(f"--to onnx: {error}") from None
    else:
        weights.save(network, target, metadata if to == "safetensors" else None, format=to)
    return {
        "output": str(target),
        "format": to,
        "model": found.model,
        "classes": found.classes,
        "bytes": target.stat().st_size,
        "loaded": str(report),
    }


@dataclass(frozen=True)
class _Found(Guess):
    size: int = 32


def _identify(file: WeightFile, model: str | None, stem: str | None) -> _Found:
    """The network that a file is of: what it says, else what its tensors look like."""
    if "arguments" in file.metadata:
        card = Card.from_metadata(file.metadata, file.path)
        options = {}
        found = _Found(card.model, len(card.classes), card.stem, options, card.size)
        return dataclasses.replace(found, model=model or found.model, stem=stem or found.stem)
    seen = weights.guess(file.arrays)
    if model is None and seen is None:
        reason = "does not say which network it is of, nor is it one of the usual"
        raise ConfigError(f"{file.path}: {reason}; give --model NAME")
    heads = [array.shape[0] for array in file.arrays.values() if array.ndim == 2]
    classes = heads[-1] if heads else None
    if seen is None or model not in (None, seen.model):
        assert model is not None
        seen = Guess(model, classes)
    stem = stem or seen.stem
    size = 224 if stem == "imagenet" else 32
    return _Found(seen.model, seen.classes or classes, stem, seen.options, size)
