"""Shrunken copies: which are used, which are deleted first, and what happens where none can be."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import sys
import time
import zlib
from collections import namedtuple
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from minires.data import Copies, PictureLoader, PictureReader, copies_folder, picture_folder
from minires.data.decode import do, read_picture
from minires.data.task import Limits, Task

from .photos import make_folder, noisy

__all__: list[str] = []

TASK = Task(0, [], 16, keep=True)
HOUR = 3600.0


def fake(folder: Path, number: int, size: int = 1000, age: float = HOUR) -> Path:
    """A file with a copy's name, last used `age` seconds ago."""
    name = f"{number:064x}.jpg"
    path = folder / name[-6:-4] / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(bytes(size))
    os.utime(path, (time.time() - age,) * 2)
    return path


def names(folder: Path) -> list[int]:
    return sorted(int(path.stem, 16) for path in folder.rglob("*.jpg") if len(path.stem) == 64)


def disk(monkeypatch: pytest.MonkeyPatch, free: int) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(10**12, 10**12 - free, free))


# The folder


def test_what_was_not_used_for_longest_goes_first(tmp_path: Path):
    for i in range(20):
        fake(tmp_path, i, age=HOUR * (1 + (i + 5) % 20))  # the oldest is 14, then 13, ...
    copies = Copies(tmp_path, 16_000)
    assert (copies.count, copies.bytes) == (14, 14_000)  # 7/8 of it
    assert names(tmp_path) == [*range(9), *range(15, 20)]
    assert copies.may_write
    assert list(copies.news()) == [
        f"shrunken copies of large pictures are kept in {tmp_path}: 14 of 0.0 MB, at most 0.0 MB"
    ]
    assert not list(copies.news())


def test_what_this_run_uses_stays_and_then_no_more_is_written(tmp_path: Path):
    old = fake(tmp_path, 0, 5000)
    copies = Copies(tmp_path, 16_000)
    list(copies.news())
    for i in range(1, 5):
        fake(tmp_path, i, 3000, age=-1)
        copies.note(3000)
    assert not old.exists()
    assert copies.may_write
    fake(tmp_path, 5, 3500, age=-1)
    copies.note(3500)
    assert names(tmp_path) == [1, 2, 3, 4, 5]
    assert not copies.may_write
    (line,) = copies.news()
    assert "the other large pictures are decoded anew each time" in line
    assert Copies(tmp_path, 100_000).may_write


def test_only_our_files_are_counted_and_deleted(tmp_path: Path):
    kept = [tmp_path / "ab" / "photo.jpg", tmp_path / "photo.jpg", tmp_path / "abc" / "x.jpg"]
    kept += [tmp_path / "ab" / "cd" / f"{1:064x}.jpg", tmp_path / f"{1:064x}.jpg"]
    kept += [tmp_path / "ab" / f"{2:064x}.jpg.77.new"]  # of another run, at this moment
    for path in kept:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(bytes(900))
        if path.suffix != ".new":
            os.utime(path, (0, 0))
    half = tmp_path / "ab" / f"{3:064x}.jpg.77.new"
    half.write_bytes(bytes(900))
    os.utime(half, (0, 0))
    (tmp_path / "cd").symlink_to(tmp_path / "ab")
    fake(tmp_path, 7)
    copies = Copies(tmp_path, 1000)
    assert (copies.count, copies.bytes) == (0, 0)
    assert all(path.exists() for path in kept)
    assert not half.exists()
    assert not names(tmp_path / "00")


def test_a_quarter_of_the_free_disk_at_most(tmp_path: Path, monkeypatch):
    for i in range(10):
        fake(tmp_path, i)
    disk(monkeypatch, 6000)
    copies = Copies(tmp_path, 10**9)
    assert copies.bytes <= 4000  # a quarter of 6,000 and 10,000
    assert copies.may_write
    disk(monkeypatch, 0)
    copies = Copies(tmp_path, 10**9)
    assert not copies.count


def test_no_permission_only_ends_the_writing(tmp_path: Path):
    (tmp_path / "file").write_text("")
    for folder in (tmp_path / "file", tmp_path / "file" / "below"):
        copies = Copies(folder)
        assert not copies.may_write
        (line,) = copies.news()
        assert f"no copies of pictures are kept: cannot write to {folder}: " in line
    copies = Copies(tmp_path / "new")
    list(copies.news())
    for _ in range(3):
        copies.note(-errno.ENOSPC)
    (line,) = copies.news()
    assert line.endswith("No space left on device")


def test_only_looking_leaves_everything_as_it_is(tmp_path: Path):
    for i in range(5):
        fake(tmp_path, i)
    copies = Copies(tmp_path, 1000, fill=False)
    assert not copies.may_write
    copies.note(0)
    assert not list(copies.news())
    assert names(tmp_path) == [0, 1, 2, 3, 4]
    Copies(tmp_path / "none", fill=False)
    assert not (tmp_path / "none").exists()


@pytest.mark.skipif(sys.platform == "darwin", reason="has another place for caches")
def test_the_usual_folder(tmp_path: Path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert copies_folder() == str(tmp_path / "minires" / "pictures")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    for value in ("", "relative"):
        monkeypatch.setenv("XDG_CACHE_HOME", value)
        assert copies_folder() == str(tmp_path / "home/.cache/minires/pictures")
    monkeypatch.setattr(os.path, "expanduser", lambda path: path)  # nobody's home
    assert copies_folder() is None


# Reading and writing them


def test_a_copy_is_marked_as_used_once_a_run(tmp_path: Path):
    file = tmp_path / "a.png"
    noisy(90, 50, 0).save(file)
    limits = Limits(10_000, str(tmp_path / "copies"), time.time() - 10)
    read_picture(file, TASK, limits)
    (copy,) = (tmp_path / "copies").rglob("*.jpg")
    for age, expected in ((HOUR, 0.0), (5.0, 5.0)):
        os.utime(copy, (time.time() - age,) * 2)
        read_picture(file, TASK._replace(keep=False), limits)
        assert time.time() - copy.stat().st_mtime == pytest.approx(expected, abs=3)


def test_the_pixels_are_those_of_the_copy_wherever_none_can_be_written(tmp_path: Path):
    file = tmp_path / "a.png"
    noisy(90, 50, 0).save(file)
    (tmp_path / "no folder").write_text("")
    seen = []
    for folder, keep in (("copies", True), ("copies", False), ("none", False), ("no folder", True)):
        memory = bytearray(768)
        task = Task(0, [str(file)], 16, keep=keep)
        outcome = do(task, Limits(10_000, str(tmp_path / folder)), memory)
        seen.append((bytes(memory), outcome.copied))
    assert len({pixels for pixels, _ in seen}) == 1
    (copy,) = (tmp_path / "copies").rglob("*.jpg")
    assert [copied for _, copied in seen] == [copy.stat().st_size, 0, 0, -errno.ENOTDIR]
    assert not (tmp_path / "none").exists()
    assert not list(tmp_path.rglob("*.new"))


def test_a_picture_over_the_limit_is_refused_in_spite_of_its_copy(tmp_path: Path):
    file = tmp_path / "a.png"
    noisy(90, 50, 0).save(file)
    read_picture(file, TASK, Limits(10_000, str(tmp_path / "copies")))
    with pytest.raises(ValueError, match="90x50 is more than 4,000 pixels"):
        read_picture(file, TASK, Limits(4_000, str(tmp_path / "copies")))


def load(root: Path, copies: Copies, workers: int = 0) -> list[Any]:
    pictures = picture_folder(root, val_fraction=0, test_fraction=0)
    with PictureReader(workers, copies=copies) as reader:
        return list(PictureLoader(pictures, 4, size=8, reader=reader))


def test_batches_do_not_depend_on_the_copies(tmp_path: Path):
    root, folder = make_folder(tmp_path / "data"), tmp_path / "copies"
    first = load(root, Copies(folder))
    made = names(folder)
    assert len(made) == 12
    for copies in (
        Copies(folder),
        Copies(folder, fill=False),
        Copies(folder, 1),  # all deleted
        Copies(tmp_path / "data" / "a" / "00.jpg"),  # no folder
        Copies(tmp_path / "elsewhere", fill=False),
    ):
        np.testing.assert_equal(load(root, copies), first)
    assert not (tmp_path / "elsewhere").exists()


def test_a_bounded_folder_keeps_a_part_of_the_data_set(tmp_path: Path):
    root, folder = make_folder(tmp_path / "data", "abcdef", 10), tmp_path / "copies"
    copies = Copies(folder, 20_000)
    first = load(root, copies, workers=1)
    assert not copies.may_write
    made = names(folder)
    assert 0 < len(made) < 60
    sizes = [path.stat().st_size for path in folder.rglob("*.jpg")]
    assert sum(sizes) < 20_000 + 12 * max(sizes)  # three batches are under way
    np.testing.assert_equal(load(root, Copies(folder, 20_000), workers=1), first)


@pytest.mark.skipif(os.name != "posix", reason="workers need POSIX")
def test_runs_that_share_a_folder(tmp_path: Path, child_env: dict[str, Any]):
    """Two processes make the same copies while a third deletes: nothing differs, nothing is left
    half.
    """
    root, folder = make_folder(tmp_path / "data"), tmp_path / "copies"
    expected = load(root, Copies(tmp_path / "alone"))
    code = (
        "import sys, zlib; from pathlib import Path; from minires.data import Copies;"
        "from tests.data.test_copies import load; root, folder = map(Path, sys.argv[1:]);"
        "print([zlib.crc32(x.tobytes()) for _ in range(8) for x, _ in load(root, Copies(folder))])"
    )
    runs = [
        subprocess.Popen(
            [sys.executable, "-c", code, root, folder],
            env=child_env,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(2)
    ]
    while any(run.poll() is None for run in runs):
        Copies(folder, 1)
        time.sleep(0.01)
    sums = [zlib.crc32(x.tobytes()) for x, _ in expected] * 8
    for run in runs:
        assert run.communicate()[0] == f"{sums}\n"
        assert run.returncode == 0
    assert not list(folder.rglob("*.new"))
