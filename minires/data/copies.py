"""A folder of shrunken copies of pictures, held below a size: what is kept, and what goes first.

Decoding a large picture takes longer than a small network needs to learn from it, so the first look
at one leaves a copy here and later looks, of any run, read that. Workers write and read the copies
(`decode.py`); here they are counted and deleted. A copy's name is a hash of the picture's path,
size and time of change, so a picture that changed has another one, and the old one goes in time.

What goes is what nobody has used for longest, but nothing that was used since this run began: where
a data set has no room, a part of it keeps its copies instead of all of them chasing each other.
Only files with names like ours are ever counted or deleted.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator

from .pictures import printable

__all__ = ["DEFAULT_BYTES", "Copies", "copies_folder"]

DEFAULT_BYTES = 4_000_000_000
SHARE_OF_DISK = 0.25  # of what is free there, the copies themselves included
FULL = 15 / 16  # of the most bytes: the rest is for copies under way and for other runs
CLEARED = 7 / 8  # how far to clear up when full
RECOUNT = 1 / 64  # of the most bytes: written since the last count, after which to count again
ABANDONED = 3600.0  # seconds after which a half-written copy belongs to nobody
FOLDER, COPY = re.compile(r"[0-9a-f]{2}"), re.compile(r"[0-9a-f]{64}\.jpg(\.\d+\.new)?")


def copies_folder() -> str | None:
    """The usual place: `minires/pictures` in the user's cache folder; None where there is none."""
    wanted = os.environ.get("XDG_CACHE_HOME", "")
    if not os.path.isabs(wanted):  # as its specification says
        wanted = "~/Library/Caches" if sys.platform == "darwin" else "~/.cache"
    folder = os.path.expanduser(wanted)
    return None if folder.startswith("~") else os.path.join(folder, "minires", "pictures")


class Copies:
    """The copies in `folder`, at most `most` bytes of them, give or take those under way, and
    never more than a quarter of what the disk has free.

    `may_write` says whether to make more, and `note` is told of each. A folder that cannot be
    written, or a disk that is full, only ends the writing: `news` then says why. Where `fill` is
    False nothing is ever written or deleted.
    """

    def __init__(
        self, folder: str | os.PathLike[str], most: int = DEFAULT_BYTES, fill: bool = True
    ) -> None:
        self.folder, self.most, self.may_write = os.path.abspath(folder), most, fill
        self.begun = time.time()
        self.count, self.bytes, self._uncounted = 0, 0, 0
        self._news: list[str] = []
        if fill:
            self._begin()

    def _begin(self) -> None:
        try:
            os.makedirs(self.folder, exist_ok=True)
            with tempfile.TemporaryFile(dir=self.folder):
                pass
            self.make_room()
        except OSError as error:
            self._stop(error.strerror or str(error))
            return
        held = f"{self.count:,} of {megabytes(self.bytes)}, at most {megabytes(self._limit())}"
        place = printable(self.folder)
        self._news.insert(0, f"shrunken copies of large pictures are kept in {place}: {held}")

    def note(self, copied: int) -> None:
        """A worker has written a copy of so many bytes; it could not if negative: -errno."""
        if copied < 0:
            self._stop(os.strerror(-copied))
        elif copied:
            self._uncounted += copied
            if self._uncounted > self.most * RECOUNT:
                try:
                    self.make_room()
                except OSError as error:  # the folder is gone
                    self._stop(error.strerror or str(error))

    def make_room(self) -> None:
        """Count the copies; where they are too many, delete what was not used for longest."""
        found = sorted(self._listed())
        self.count, self.bytes = len(found), sum(size for _, size, _ in found)
        self._uncounted, limit = 0, self._limit()
        if self.bytes > FULL * limit:
            for used, size, path in found:
                if self.bytes <= CLEARED * limit or used >= self.begun:
                    break
                with contextlib.suppress(OSError):  # another run was faster
                    os.unlink(path)
                self.count, self.bytes = self.count - 1, self.bytes - size
        if self.may_write and self.bytes > FULL * limit:
            self.may_write = False
            text = "the other large pictures are decoded anew each time"
            self._news.append(f"copies of pictures fill {megabytes(limit)}: {text}")

    def news(self) -> Iterator[str]:
        """Lines for the user, each of them once."""
        while self._news:
            yield self._news.pop(0)

    def _stop(self, reason: str) -> None:
        if self.may_write:
            self.may_write = False
            place = printable(self.folder)
            self._news.append(f"no copies of pictures are kept: cannot write to {place}: {reason}")

    def _limit(self) -> float:
        free = shutil.disk_usage(self.folder).free
        return min(self.most, SHARE_OF_DISK * (free + self.bytes))

    def _listed(self) -> Iterator[tuple[float, int, str]]:
        """(last use, bytes, path) of each copy; halves that nobody writes any more are deleted."""
        for part in _entries(self.folder):
            if not FOLDER.fullmatch(part.name) or not part.is_dir(follow_symlinks=False):
                continue
            for file in _entries(part.path):
                with contextlib.suppress(OSError):  # deleted meanwhile
                    status = file.stat(follow_symlinks=False)
                    if not COPY.fullmatch(file.name):
                        continue
                    if file.name.endswith(".jpg"):
                        yield status.st_mtime, status.st_size, file.path
                    elif time.time() - status.st_mtime > ABANDONED:
                        os.unlink(file.path)


def _entries(folder: str) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return list(entries)
    except OSError:  # not there, or not ours
        return []


def megabytes(count: float) -> str:
    """So many bytes, for people.

    >>> megabytes(4e9), megabytes(260_400_000), megabytes(81_000)
    ('4.0 GB', '260 MB', '0.1 MB')
    """
    if count >= 1e9:
        return f"{count / 1e9:.1f} GB"
    return f"{count / 1e6:.0f} MB" if count >= 1e7 else f"{count / 1e6:.1f} MB"
