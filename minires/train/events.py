"""Event files for TensorBoard, by choice (`--tensorboard`)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

__all__ = ["EVENTS", "Events"]

EVENTS = "tensorboard"  # the folder of the event files in a run folder
REMEDY = "--tensorboard: needs the package tensorboardX: pip install 'minires[tensorboard]'"


class Events:
    """Writes the numbers of every epoch to `folder`, once begun. Raises ImportError with the remedy
    when tensorboardX is missing.
    """

    def __init__(self, folder: Path) -> None:
        try:
            from tensorboardX import SummaryWriter  # type: ignore[import-not-found]
        except ImportError:  # optional: few want it, and it brings protobuf
            raise ImportError(REMEDY) from None
        self._make, self._folder = SummaryWriter, folder
        self._writer: Any = None

    def begin(self, records: Sequence[Mapping[str, Any]] = ()) -> None:
        """Open the file; `records` are those of before a resumption, which are written again in
        place of the old files.
        """
        for old in self._folder.glob("events.out.tfevents.*"):
            old.unlink()
        self._writer = self._make(str(self._folder))
        for record in records:
            self.add(record)

    def add(self, record: Mapping[str, Any]) -> None:
        """Add a line of metrics.jsonl or timing.jsonl: train/loss, val/accuracy, ..., by epoch."""
        for name, value in record.items():
            if name != "epoch" and value is not None:
                split, _, what = name.partition("_")
                tag = f"{split}/{what}" if split in ("train", "val", "test") else f"run/{name}"
                self._writer.add_scalar(tag, value, record["epoch"])
        self._writer.flush()

    def close(self) -> None:
        """Close the file."""
        if self._writer is not None:
            self._writer.close()
