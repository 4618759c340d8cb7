"""Batches of pictures: the same whoever decodes them, and whatever cannot be read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from minires.data import (
    Copies,
    PictureAugment,
    PictureLoader,
    PictureReader,
    Pictures,
    normalise,
    picture_folder,
)
from minires.data.decode import read_picture
from minires.data.task import Limits, Task
from minires.errors import DataError

from .photos import gradient, make_folder

__all__: list[str] = []

SIZE = 12
AUGMENT = PictureAugment(jitter=0.3)
TRAINING: dict[str, Any] = {"shuffle": True, "augment": AUGMENT, "stand_ins": True, "seed": 5}


def whole(root: Path) -> Pictures:
    return picture_folder(root, val_fraction=0, test_fraction=0)


@pytest.fixture
def pictures(tmp_path: Path) -> Pictures:
    """Twelve pictures; four of them damaged, two in a row, the last of its class."""
    return whole(make_folder(tmp_path, damaged="a/01.png a/02.webp b/03.jpg b/05.webp"))


def epochs(pictures: Pictures, workers: int) -> tuple[list[Any], dict[str, str]]:
    """Two training epochs and one measurement."""
    with PictureReader(workers) as reader:
        loader = PictureLoader(pictures, 5, size=SIZE, reader=reader, **TRAINING)
        batches = list(loader)
        loader.set_epoch(1)
        batches += list(loader)
        batches += list(PictureLoader(pictures, 4, size=SIZE, reader=reader))
        assert len(reader.pids) == workers
        assert 0 < reader.seconds < 30
    assert not reader.pids
    return batches, reader.skipped


def test_batches_do_not_depend_on_the_workers(pictures: Pictures):
    alone, skipped = epochs(pictures, 0)
    shared, skipped_too = epochs(pictures, 2)
    assert [len(labels) for _, labels in alone] == [5, 5, 2, 5, 5, 2, 2, 4, 2]
    np.testing.assert_equal(shared, alone)
    assert skipped == skipped_too
    names = [Path(path).relative_to(pictures.root).as_posix() for path in sorted(skipped)]
    assert names == ["a/01.png", "a/02.webp", "b/03.jpg", "b/05.webp"]
    assert not np.array_equal(alone[0][0], alone[3][0])


def test_what_a_batch_holds(pictures: Pictures):
    loader = PictureLoader(pictures, 3, size=SIZE, mean=[0, 0, 0], std=[1, 1, 1])
    images, labels = next(iter(loader))
    assert labels.tolist() == [0]  # two of three are damaged
    seen = read_picture(pictures.path(0), Task(0, [], SIZE, centre=1.0), Limits(10**6))
    expected = normalise(np.asarray(seen)[None], [0, 0, 0], [1, 1, 1])
    np.testing.assert_array_equal(images, expected)


def test_the_next_of_the_class_stands_in(pictures: Pictures):
    """Without anything random, damaged ones look like the next one that is not."""
    loader = PictureLoader(pictures, 12, size=SIZE, stand_ins=True)
    ((images, labels),) = loader
    assert labels.tolist() == [0] * 6 + [1] * 6
    for damaged, stand_in in ((1, 3), (2, 3), (9, 10), (11, 6)):
        np.testing.assert_array_equal(images[damaged], images[stand_in])
    assert len({image.tobytes() for image in images}) == 8


def test_a_resumed_epoch(pictures: Pictures):
    loader = PictureLoader(pictures, 5, size=SIZE, **TRAINING)
    loader.set_epoch(3)
    everything = list(loader)
    loader.set_epoch(3, start_batch=1)
    np.testing.assert_equal(list(loader), everything[1:])


def test_stop_at_the_first_bad_picture(pictures: Pictures):
    reader = PictureReader(on_bad="stop")
    with pytest.raises(DataError, match=r"a/01.png: not a picture"):
        list(PictureLoader(pictures, 5, size=SIZE, reader=reader, stand_ins=True))
    reader = PictureReader(on_bad="stop", max_pixels=600)
    with pytest.raises(DataError, match=r"a/00.jpg: 20x40 is more than 600 pixels"):
        list(PictureLoader(pictures, 5, size=SIZE, reader=reader))


def test_a_class_without_a_readable_picture(tmp_path: Path):
    damaged = " ".join(f"b/{i:02}.{('jpg', 'png', 'webp')[i % 3]}" for i in range(5))
    root = make_folder(tmp_path, count=5, damaged=damaged)
    with pytest.raises(DataError, match=r"class 'b': none of its 5 pictures can be read"):
        list(PictureLoader(whole(root), 5, size=SIZE, stand_ins=True))
    # in measuring, a batch of damaged pictures alone is no batch
    assert [len(labels) for _, labels in PictureLoader(whole(root), 5, size=SIZE)] == [5]


def test_one_iteration_at_a_time(pictures: Pictures):
    with PictureReader(1) as reader:
        loader = PictureLoader(pictures, 2, size=SIZE, reader=reader)
        first = iter(loader)
        a = next(first)
        second = iter(loader)
        np.testing.assert_equal(next(second), a)
        with pytest.raises(RuntimeError, match="in use by a newer iteration"):
            next(first)
        assert len(list(second)) == 5
        other = PictureLoader(pictures, 2, size=SIZE + 1, reader=reader)  # needs other memory
        assert next(iter(other))[0].shape == (1, SIZE + 1, SIZE + 1, 3)
    with pytest.raises(RuntimeError, match="closed"):
        next(iter_closed(loader, reader))


def iter_closed(loader: PictureLoader, reader: PictureReader) -> Any:
    batches = iter(loader)
    next(batches)
    reader.close()
    return batches


def test_values_out_of_range(pictures: Pictures):
    for options, message in (
        ({"area": 0.0}, "area is 0.0"),
        ({"area": 1.5}, "area is 1.5"),
        ({"jitter": 2.0}, "jitter is 2.0"),
    ):
        with pytest.raises(ValueError, match=message):
            PictureAugment(**options)
    with pytest.raises(ValueError, match="workers is -1"):
        PictureReader(-1)
    with pytest.raises(ValueError, match="on_bad is 'ignore' but must be skip or stop"):
        PictureReader(on_bad="ignore")
    with pytest.raises(ValueError, match="batch_size is 0"):
        PictureLoader(pictures, 0)
    with pytest.raises(DataError, match="no batch of 13 in 12 pictures"):
        PictureLoader(pictures, 13, drop_last=True)
    with pytest.raises(ValueError, match="start_batch 4 but must be .* 0 to 3"):
        PictureLoader(pictures, 5).set_epoch(0, 4)


def test_the_cache_is_used(tmp_path: Path):
    root = make_folder(tmp_path / "data", count=2)
    gradient(100, 80).save(root / "a" / "00.jpg")
    with PictureReader(copies=Copies(tmp_path / "cache")) as reader:
        loader = PictureLoader(whole(root), 4, size=SIZE, reader=reader)
        first = list(loader)
        assert len(list((tmp_path / "cache").rglob("*.jpg"))) == 1
        np.testing.assert_equal(list(loader), first)
