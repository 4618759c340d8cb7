"""Folders of pictures: which files, which classes, which split."""

from __future__ import annotations

import os
import re
from pathlib import Path

import numpy as np
import pytest

from minires.data import Pictures, picture_folder, picture_folders
from minires.errors import DataError

__all__: list[str] = []


def touch(root: Path, names: str) -> Path:
    """Files of one byte each; nothing here looks inside."""
    for name in names.split():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")
    return root


@pytest.fixture
def classes(tmp_path: Path) -> Path:
    """40 pictures of each of three classes."""
    names = " ".join(f"{c}/{i:02}.jpg" for c in ("ant", "bee", "cat") for i in range(40))
    return touch(tmp_path, names)


def test_class_folders_are_split_by_the_seed(classes: Path):
    parts = picture_folders(classes, val_fraction=0.2, test_fraction=0.1)
    assert {name: len(part) for name, part in parts.items()} == {"train": 84, "val": 24, "test": 12}
    for part, each in zip(("train", "val", "test"), (28, 8, 4), strict=True):
        assert np.bincount(parts[part].labels).tolist() == [each] * 3
        names = [parts[part].classes[k] for k in parts[part].labels]
        assert [file.split("/")[0] for file in parts[part].files] == names
    files = [file for part in parts.values() for file in part.files]
    assert len(set(files)) == 120

    again = picture_folders(classes, val_fraction=0.2, test_fraction=0.1)
    other = picture_folders(classes, val_fraction=0.2, test_fraction=0.1, seed=1)
    assert again["test"].files == parts["test"].files
    assert other["test"].files != parts["test"].files


def test_few_pictures_a_class(tmp_path: Path):
    touch(tmp_path, " ".join(f"{c}/{i}.png" for c in "abcdefghij" for i in range(5)) + " k/0.png")
    parts = picture_folders(tmp_path)
    assert [len(parts[name]) for name in ("train", "val", "test")] == [41, 5, 5]
    assert set(parts["train"].labels) == set(range(11))


def test_split_folders(tmp_path: Path):
    names = "train/a/1.jpg train/a/deep/2.PNG train/b/3.webp valid/b/4.jpeg test/a/5.gif"
    parts = picture_folders(touch(tmp_path, names))
    assert parts["train"].files == ["train/a/1.jpg", "train/a/deep/2.PNG", "train/b/3.webp"]
    assert parts["val"].files == ["valid/b/4.jpeg"]
    assert parts["val"].labels.tolist() == [1]
    assert parts["test"].files == ["test/a/5.gif"]
    assert parts["test"].sizes.tolist() == [1]
    assert parts["test"].path(0) == str(tmp_path / "test/a/5.gif")


def test_missing_splits_come_from_the_training_pictures(tmp_path: Path):
    touch(
        tmp_path, " ".join(f"train/{c}/{i}.jpg" for c in "ab" for i in range(20)) + " val/a/x.jpg"
    )
    parts = picture_folders(tmp_path)
    assert [len(parts[name]) for name in ("train", "val", "test")] == [36, 1, 4]
    assert not set(parts["train"].files) & set(parts["test"].files)
    assert len(picture_folders(tmp_path, test_fraction=0.0)["test"]) == 0


def test_a_class_may_be_called_train(tmp_path: Path):
    parts = picture_folders(touch(tmp_path, "train/1.jpg train/2.jpg bus/1.jpg test/1.jpg"))
    assert parts["train"].classes == ["bus", "test", "train"]


def test_hidden_and_foreign_files_are_counted(tmp_path: Path):
    touch(
        tmp_path, "a/1.jpg a/.2.jpg a/notes.txt a/Thumbs.db b/3.jpg b/.git/4.jpg readme.md .x/5.jpg"
    )
    os.mkfifo(tmp_path / "a" / "pipe.jpg")
    train = picture_folder(tmp_path, val_fraction=0, test_fraction=0)
    assert train.files == ["a/1.jpg", "b/3.jpg"]
    assert train.classes == ["a", "b"]
    assert train.ignored == 5


def test_links_are_followed_but_not_in_circles(tmp_path: Path):
    touch(tmp_path / "data", "a/1.jpg b/2.jpg")
    touch(tmp_path / "more", "3.jpg")
    (tmp_path / "data/b/more").symlink_to(tmp_path / "more")
    (tmp_path / "data/a/loop").symlink_to(tmp_path / "data/a")
    (tmp_path / "data/a/gone.jpg").symlink_to(tmp_path / "gone")
    train = picture_folder(tmp_path / "data", val_fraction=0, test_fraction=0)
    assert train.files == ["a/1.jpg", "a/gone.jpg", "b/2.jpg", "b/more/3.jpg"]


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ("", "{root}: no class folders: expected one folder a class, or train/"),
        ("1.jpg", "{root}: no class folders"),
        ("a/x.txt b/y.txt", "{root}: no pictures in its 2 folders (.bmp .gif"),
        ("a/1.jpg", "{root}: only one class, 'a'"),
        ("a/1.jpg b/x.txt c/2.jpg", "{root}: no pictures of class 'b' (1 such classes)"),
        ("train/a/1.jpg train/b/2.jpg val/c/3.jpg", "{root}/val/c: class 'c' has no folder among"),
        ("train/a/1.jpg train/b/2.jpg test/a/x.txt", "{root}/test: no pictures in its class"),
    ],
)
def test_nothing_to_learn_from(tmp_path: Path, names: str, message: str):
    with pytest.raises(DataError, match=re.escape(message.format(root=tmp_path))) as caught:
        picture_folders(touch(tmp_path, names))
    assert "\n" not in str(caught.value)


def test_no_folder(tmp_path: Path):
    with pytest.raises(DataError, match="no such folder"):
        picture_folders(tmp_path / "none")
    with pytest.raises(ValueError, match="split is 'all' but must be train, val or test"):
        picture_folder(tmp_path, "all")


def test_names_that_are_not_utf8(tmp_path: Path):
    name = b"a\xff"
    (tmp_path / "b").mkdir()
    (Path(tmp_path) / name.decode("utf-8", "surrogateescape")).mkdir()
    with pytest.raises(DataError, match=r"no pictures in its 2 folders"):
        picture_folders(tmp_path)
    touch(tmp_path, "b/1.jpg")
    with pytest.raises(DataError, match=r"class 'a\\udcff'") as caught:
        picture_folders(tmp_path)
    str(caught.value).encode()


def test_parts_and_names(classes: Path):
    whole = picture_folder(classes, val_fraction=0, test_fraction=0)
    assert isinstance(whole, Pictures)
    assert repr(whole) == f"Pictures {classes}: 120 pictures, 3 classes"
    assert np.bincount(whole.spread(6).labels).tolist() == [2, 2, 2]
    assert whole.spread(500) is whole
    assert whole[whole.labels == 1].files[0] == "bee/00.jpg"
