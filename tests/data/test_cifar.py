"""CIFAR folders in both layouts, synthetic and real; each kind of damage is one clear line."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from minires.data import cifar10, cifar100, load_dataset
from minires.data.cifar import LAYOUTS, Layout, find_layout, parent_folder
from minires.errors import DataError
from tests.data.synthetic import NAMES, ROWS, label, picture, python2_pickle, small, write

__all__: list[str] = []

READ = {"cifar10": cifar10, "cifar100": cifar100}


@pytest.fixture(autouse=True)
def small_files(request: pytest.FixtureRequest, monkeypatch: Any) -> None:
    """The layouts of small files, unless the test wants the real ones."""
    if "real_cifar10" in request.fixturenames or "real_cifar10_all" in request.fixturenames:
        return
    for name, layouts in list(LAYOUTS.items()):
        monkeypatch.setitem(LAYOUTS, name, tuple(small(layout) for layout in layouts))


@pytest.fixture(
    params=[(name, i) for name in LAYOUTS for i in (0, 1)], ids=lambda p: f"{p[0]}-{'bp'[p[1]]}"
)
def case(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[str, Layout, Path]:
    """Each data set in each layout: (name, layout, its folder)."""
    name, i = request.param
    layout = LAYOUTS[name][i]
    return name, layout, write(tmp_path / layout.folder, name, layout)


def test_the_folder_or_its_parent(case: tuple[str, Layout, Path]) -> None:
    name, layout, folder = case
    for data_dir in (folder, folder.parent, str(folder)):
        for split in ("train", "test"):
            dataset = READ[name](data_dir, split)
            n = ROWS * len(layout.splits[split])
            assert dataset.images.shape == (n, 32, 32, 3)
            assert dataset.images.dtype == np.uint8
            assert dataset.images.flags.c_contiguous
            assert dataset.name == name
            assert dataset.classes == NAMES[name]
            np.testing.assert_array_equal(dataset.images, [picture(i) for i in range(n)])
            assert dataset.labels.tolist() == [label(i, name) for i in range(n)]


def test_a_limit_reads_the_first(case: tuple[str, Layout, Path]) -> None:
    name, layout, folder = case
    n = ROWS * len(layout.splits["train"])
    for limit in (1, ROWS, ROWS + 1, n, n + 5):
        dataset = READ[name](folder, "train", limit=limit)
        np.testing.assert_array_equal(dataset.images[:, 0, 0, 2], np.arange(min(limit, n)))
    if name == "cifar10":
        (folder / layout.splits["train"][4]).write_bytes(b"damaged")
        assert (
            len(READ[name](folder, "train", limit=ROWS)) == ROWS
        )  # what is not needed is not read
    with pytest.raises(ValueError, match=rf"{name}: limit is 0 but must be at least 1"):
        READ[name](folder, "train", limit=0)


def test_a_missing_file_is_named_with_the_remedy(case: tuple[str, Layout, Path]) -> None:
    name, layout, folder = case
    gone = folder / layout.splits["train"][-1]
    gone.unlink()
    for data_dir in (folder, folder.parent):
        with pytest.raises(DataError) as caught:
            READ[name](data_dir, "train")
        remedy = f"get it with --download --data {folder.parent}"
        assert str(caught.value) == f"{gone}: file of {name} is missing; {remedy}"
    assert READ[name](folder, "test")  # which has its files


def test_truncated_files_are_named(case: tuple[str, Layout, Path]) -> None:
    name, layout, folder = case
    path = folder / layout.splits["test"][0]
    whole = path.read_bytes()
    for raw in (whole[:-1], whole[:5000], b""):
        path.write_bytes(raw)
        with pytest.raises(DataError) as caught:
            READ[name](folder, "test")
        assert str(path) in str(caught.value)
        assert "\n" not in str(caught.value)
        assert "--download" in str(caught.value)
    if layout.label_bytes:
        path.write_bytes(whole + b"x")
        expected = rf"has {len(whole) + 1:,} bytes but must have {len(whole):,}; delete it"
        with pytest.raises(DataError, match=expected):
            READ[name](folder, "test")


def test_a_label_out_of_range_is_named(case: tuple[str, Layout, Path]) -> None:
    name, layout, folder = case
    path = folder / layout.splits["test"][0]
    if layout.label_bytes:
        records = np.fromfile(path, np.uint8).reshape(ROWS, -1)
        records[7, layout.label_bytes - 1] = 200
        records.tofile(path)
    else:
        planes = np.zeros((ROWS, 3072), np.uint8)
        labels = [0] * 7 + [200] + [0] * (ROWS - 8)
        path.write_bytes(python2_pickle({"data": planes, layout.label_key: labels}))
    last = layout.classes - 1
    with pytest.raises(
        DataError, match=rf"has label 200 at image 7 but must have labels 0 to {last}; "
    ) as caught:
        READ[name](folder, "test")
    assert str(caught.value).startswith(str(path))


def test_class_names_may_be_missing(case: tuple[str, Layout, Path]) -> None:
    name, layout, folder = case
    (folder / layout.names).unlink()
    classes = READ[name](folder, "test").classes
    assert len(classes) == layout.classes
    assert classes[3] == ("cat" if name == "cifar10" else "class 3")


def test_wrong_class_names(case: tuple[str, Layout, Path]) -> None:
    name, layout, folder = case
    few = ["one", "two", "three"]
    path = folder / layout.names
    path.write_bytes(
        b"one\ntwo\nthree" if layout.label_bytes else python2_pickle({layout.names_key: few})
    )
    with pytest.raises(
        DataError, match=rf"{layout.names}: names 3 classes but must name {layout.classes}"
    ):
        READ[name](folder, "test")


@pytest.mark.parametrize(("content", "message"), [
    ({"labels": [0] * ROWS}, "holds labels but must hold 'data'"),
    ({}, "holds nothing but must hold 'data'"),
    ({"data": np.zeros((ROWS, 3072), np.uint8)}, "holds data but must hold 'labels'"),
    ({"data": [1, 2], "labels": [0] * ROWS}, "holds data list"),
    ({"data": np.zeros((ROWS, 3071), np.uint8), "labels": [0] * ROWS}, "data uint8 (20, 3071)"),
    ({"data": np.zeros((ROWS, 3072), np.int64), "labels": [0] * ROWS}, "data int64 (20, 3072)"),
    ({"data": np.zeros((ROWS, 3072), np.uint8), "labels": [0] * 5}, "must hold 20 integers"),
    ({"data": np.zeros((ROWS, 3072), np.uint8), "labels": ["cat"] * ROWS}, "must hold 20 integers"),
    ({"data": np.zeros((ROWS, 3072), np.uint8), "labels": [[0], 0] * 10}, "must hold 20 integers"),
    ({"data": np.zeros((ROWS, 3072), np.uint8), "labels": [2**70] * ROWS}, "labels 0 to 9"),
    ({"data": np.zeros((ROWS, 3072), np.uint8), "labels": None}, "must hold 20 integers"),
])  # fmt: skip
def test_pickles_with_other_contents(content: dict[str, Any], message: str, tmp_path: Path) -> None:
    layout = LAYOUTS["cifar10"][1]
    folder = write(tmp_path / layout.folder, "cifar10", layout)
    (folder / "test_batch").write_bytes(pickle.dumps(content, 2))
    with pytest.raises(DataError) as caught:
        cifar10(folder, "test")
    assert message in str(caught.value)


def test_nothing_there(tmp_path: Path) -> None:
    for data_dir in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(DataError) as caught:
            cifar10(data_dir)
        assert str(caught.value) == (
            f"{data_dir}: holds no cifar10, expected a folder cifar-10-batches-bin or "
            f"cifar-10-batches-py; get it with --download --data {data_dir}"
        )


def test_a_complete_layout_wins_over_an_incomplete_one(tmp_path: Path) -> None:
    binary, python = LAYOUTS["cifar10"]
    write(tmp_path / binary.folder, "cifar10", binary)
    write(tmp_path / python.folder, "cifar10", python)
    assert find_layout("cifar10", tmp_path, "train") == (tmp_path / binary.folder, binary)
    (tmp_path / binary.folder / "data_batch_2.bin").unlink()
    assert find_layout("cifar10", tmp_path, "train") == (tmp_path / python.folder, python)


def test_another_split(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"cifar100: split is 'val' but must be 'train' or 'test'"):
        cifar100(tmp_path, "val")


def test_parent_folder() -> None:
    assert parent_folder("/data") == Path("/data")
    assert parent_folder("/data/cifar-100-python") == Path("/data")


def test_500_real_images(real_cifar10: Path) -> None:
    dataset = load_dataset("cifar10", real_cifar10, "test", limit=500)
    assert repr(dataset) == "Dataset cifar10: 500 images 32x32x3, 10 classes"
    assert dataset.classes[0] == "airplane"
    assert dataset.classes[9] == "truck"
    assert (np.bincount(dataset.labels, minlength=10) > 25).all()
    # a photograph's neighbouring pixels are alike, along rows, along columns and across colours
    pixels = dataset.images.astype(float)
    for difference in (np.diff(pixels, axis=1), np.diff(pixels, axis=2), np.diff(pixels, axis=3)):
        assert np.abs(difference).mean() < 0.5 * pixels.std()


@pytest.mark.slow
def test_all_real_images(real_cifar10_all: Path) -> None:
    train, test = (cifar10(real_cifar10_all, split) for split in ("train", "test"))
    assert np.bincount(train.labels).tolist() == [5000] * 10
    assert np.bincount(test.labels).tolist() == [1000] * 10
    assert len({image.tobytes() for image in train.images}) == 50_000
