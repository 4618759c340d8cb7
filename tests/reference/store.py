"""Many small named float64 arrays in one file: their sketches in a row, and an index."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np

from .pure import sketch

__all__ = ["Reference", "save"]

FOLDER = Path(__file__).parent


def save(name: str, arrays: Mapping[str, np.ndarray], made_by: str, **sizes: int) -> None:
    """Write `name`.npz beside this file; `sizes` are `sketch`'s, `made_by` PyTorch's version."""
    index = {key: list(np.shape(a)) for key, a in arrays.items()}
    text = json.dumps({"made_by": made_by, "sizes": sizes, "index": index}, separators=(",", ":"))
    numbers = np.concatenate([sketch(a, **sizes) for a in arrays.values()])
    np.savez_compressed(
        FOLDER / f"{name}.npz", values=numbers, index=np.frombuffer(text.encode(), np.uint8)
    )


class Reference(Mapping[str, np.ndarray]):
    """A file's content: `reference[key]` is the sketch, `.shapes[key]` the whole array's shape."""

    def __init__(self, name: str) -> None:
        with np.load(FOLDER / f"{name}.npz") as stored:
            numbers, text = stored["values"], stored["index"].tobytes()
        described = json.loads(text)
        self.made_by: str = described["made_by"]
        self.sizes: dict[str, int] = described["sizes"]
        self.shapes = {key: tuple(shape) for key, shape in described["index"].items()}
        self._sketches: dict[str, np.ndarray] = {}
        start = 0
        for key, shape in self.shapes.items():
            count = sketch(np.zeros(shape), **self.sizes).size
            self._sketches[key] = numbers[start : start + count]
            start += count

    def __getitem__(self, key: str) -> np.ndarray:
        return self._sketches[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._sketches)

    def __len__(self) -> int:
        return len(self._sketches)
