"""What decodes pictures for the loaders, and remembers those that cannot be read."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from ..errors import PictureError
from .copies import Copies
from .pictures import Pictures, printable
from .task import Limits
from .workers import InProcess, Workers

__all__ = ["ON_BAD", "PictureReader"]

ON_BAD = ("skip", "stop")


class PictureReader:
    """What decodes pictures, for any number of loaders, one at a time: worker processes or, with
    `workers=0`, the caller.

    A picture that cannot be read, or of more than `max_pixels`, is remembered in `skipped` (file:
    reason) when `on_bad` is "skip"; "stop" raises PictureError. Large pictures are read from their
    shrunken `copies`, where there are to be any. Close it, or use it in a `with` statement, to end
    the workers.
    """

    def __init__(
        self,
        workers: int = 0,
        *,
        max_pixels: int = 100_000_000,
        on_bad: str = "skip",
        copies: Copies | None = None,
    ) -> None:
        if workers < 0:
            raise ValueError(f"PictureReader: workers is {workers} but must be at least 0")
        if on_bad not in ON_BAD:
            raise ValueError(f"PictureReader: on_bad is {on_bad!r} but must be skip or stop")
        _check_pillow()
        self.workers, self.on_bad, self.copies = workers, on_bad, copies
        self.limits = Limits(max_pixels)
        if copies is not None:
            self.limits = Limits(max_pixels, copies.folder, copies.begun)
        self.skipped: dict[str, str] = {}
        self._engine: InProcess | Workers | None = None
        self._finished, self._iterations = 0.0, 0

    def __enter__(self) -> PictureReader:
        return self

    def __exit__(self, *_: Any) -> None:
        self.close()

    @property
    def seconds(self) -> float:
        """CPU time that decoding has taken so far."""
        return self._finished + (self._engine.seconds if self._engine else 0.0)

    @property
    def pids(self) -> list[int]:
        """The worker processes."""
        return self._engine.pids if isinstance(self._engine, Workers) else []

    def begin(self, slots: int, size: int) -> tuple[InProcess | Workers, int]:
        """Room for `slots` pictures, and the number of this iteration; an earlier one is over."""
        self._iterations += 1
        engine = self._engine
        if engine is not None:
            engine.drain()
        if engine is None or len(engine.images) < slots or engine.images.shape[1] != size:
            self.close()
            if self.workers:
                engine = Workers(self.workers, slots, size, self.limits)
            else:
                engine = InProcess(slots, size, self.limits)
            self._engine = engine
        return engine, self._iterations

    def check_current(self, iteration: int) -> None:
        """Raise RuntimeError when another iteration has begun since, or the reader was closed."""
        if self._engine is None or iteration != self._iterations:
            raise RuntimeError("PictureReader: closed, or in use by a newer iteration than this")

    def note(self, pictures: Pictures, index: int, reason: str) -> None:
        """Remember a picture that cannot be read. Raises PictureError if that means to stop."""
        path = printable(pictures.path(index))
        if self.on_bad == "stop":
            raise PictureError(f"{path}: {reason}")
        self.skipped[path] = reason

    @property
    def may_copy(self) -> bool:
        """Whether to write copies of pictures that have none yet."""
        return self.copies is not None and self.copies.may_write

    def note_copy(self, copied: int) -> None:
        """Count a copy that was written, or stop writing them; see `Copies.note`."""
        if self.copies is not None:
            self.copies.note(copied)

    def news(self) -> Iterator[str]:
        """What to tell the user about the copies, each line once."""
        return iter(()) if self.copies is None else self.copies.news()

    def close(self) -> None:
        """End the worker processes; a new iteration starts new ones."""
        if self._engine is not None:
            self._finished += self._engine.seconds
            self._engine.close()
            self._engine = None


def _check_pillow() -> None:
    try:
        import PIL.Image  # noqa: F401 - lazily: other data sets need no pictures
    except ImportError as error:
        raise ImportError("folders of pictures need Pillow: pip install pillow") from error
