"""PyTorch's two formats: files by PyTorch itself, files made by hand, and ways to damage them."""

from __future__ import annotations

import io
import struct
import tracemalloc
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from minires.errors import DataError
from minires.weights import load_file

from .builders import Call, Global, View, legacy_bytes, tensors, zip_bytes

__all__: list[str] = []

FILES = Path(__file__).parent / "files"
FORMATS = pytest.mark.parametrize("wrap", [zip_bytes, legacy_bytes], ids=["zip", "legacy"])
Wrap = Callable[..., bytes]


def arrays() -> dict[str, np.ndarray]:
    return {
        "conv1.weight": np.arange(24, dtype=np.float32).reshape(2, 3, 2, 2),
        "bn1.num_batches_tracked": np.array(7),
        "fc.bias": np.array([0.5, -1.5]),
        "none": np.zeros((0, 3), np.float32),
        **{kind: np.array([0, 1, 2], kind) for kind in ("i4", "i2", "i1", "u1", "?")},
    }


def loaded(raw: bytes, tmp_path: Path) -> dict[str, np.ndarray]:
    (tmp_path / "x.pth").write_bytes(raw)
    return load_file(tmp_path / "x.pth").arrays


def test_files_by_pytorch():
    grid = np.arange(12, dtype=np.float32).reshape(3, 4)
    for name in ("zip", "legacy"):
        file = load_file(FILES / f"{name}.pth")
        assert file.format == name
        assert file.metadata == {}
        got = {key.removeprefix("module."): array for key, array in file.arrays.items()}
        np.testing.assert_array_equal(got["grid"], grid)
        np.testing.assert_array_equal(got["transposed"], grid.T)
        np.testing.assert_array_equal(got["corner"], grid[1:, 2:])
        np.testing.assert_array_equal(got["learned"], [[1], [1]])
        np.testing.assert_array_equal(got["flags"], [True, False])
        for half in ("half", "bfloat"):
            assert got[half].dtype == np.float32
            np.testing.assert_array_equal(got[half], [0.5, -2.0])
        assert (got["double"].dtype, got["double"].item()) == (np.float64, 0.1)
        assert (got["scalar"].shape, got["scalar"].item()) == ((), 7)
        assert len(got) == 9


@FORMATS
def test_values_and_types(wrap: Wrap, tmp_path: Path):
    got = loaded(wrap(*tensors(arrays())), tmp_path)
    assert list(got) == list(arrays())
    for name, array in arrays().items():
        assert got[name].dtype == array.dtype
        np.testing.assert_array_equal(got[name], array)
        assert got[name].shape == array.shape
        assert not got[name].flags.writeable


@FORMATS
@pytest.mark.parametrize("key", ["state_dict", "net", "model", "model_state_dict", "anything"])
def test_wrapper_keys(wrap: Wrap, key: str, tmp_path: Path):
    views, storages = tensors(arrays())
    momentum = View("99", "FloatStorage", 1, (1,), (1,))
    storages["99"] = np.ones(1, np.float32)
    state = {index: {"momentum": momentum} for index in range(20)}
    tree = {"epoch": 1, "best": 0.5, "optimizer": {"state": state}, "list": [None, ("a",)]}
    for wrapped in ({**tree, key: views}, {"all": [{**tree, key: views}]}):
        assert list(loaded(wrap(wrapped, storages), tmp_path)) == list(views)


@FORMATS
def test_views_of_one_storage(wrap: Wrap, tmp_path: Path):
    storage = np.arange(12, dtype=np.float32)

    def view(*geometry: Any) -> View:
        return View("0", "FloatStorage", 12, *geometry)

    tree = {"t": view((4, 3), (1, 4)), "every": view((3,), (5,), 1), "end": view((), (), 11)}
    tree["parameter"] = Call("torch._utils._rebuild_parameter", (tree["t"], True, None))
    made = tree["t"].as_call(wrap is legacy_bytes)
    typed = (Global(made.function), Global("torch.Tensor"), made.arguments, {"tag": 1})
    tree["subclass"] = Call("torch._tensor._rebuild_from_type_v2", typed)
    got = loaded(wrap(tree, {"0": storage}), tmp_path)
    for name in ("t", "parameter", "subclass"):
        np.testing.assert_array_equal(got[name], storage.reshape(3, 4).T)
    np.testing.assert_array_equal(got["every"], [1, 6, 11])
    assert got["end"].item() == 11
    assert np.shares_memory(got["t"], got["every"])


def test_legacy_storage_views(tmp_path: Path):
    view = View("0", "FloatStorage", 12, (2,), (1,), 1, view=("0.1", 4, 6))
    got = loaded(legacy_bytes({"x": view}, {"0": np.arange(12, dtype=np.float32)}), tmp_path)
    np.testing.assert_array_equal(got["x"], [5, 6])


@pytest.mark.parametrize("folder", ["archive/", "", "my net/"])
def test_zip_folders(folder: str, tmp_path: Path):
    got = loaded(zip_bytes(*tensors(arrays()), folder), tmp_path)
    np.testing.assert_array_equal(got["fc.bias"], [0.5, -1.5])


def test_big_endian_machines(tmp_path: Path):
    views, storages = tensors(arrays())
    swapped = {key: array.astype(array.dtype.newbyteorder(">")) for key, array in storages.items()}
    for raw in (
        zip_bytes(views, swapped, more={"byteorder": b"big"}),
        legacy_bytes(views, swapped, big_endian=True),
    ):
        for name, array in loaded(raw, tmp_path).items():
            np.testing.assert_array_equal(array, arrays()[name])


def one(wrap: Wrap, *geometry: Any, count: int = 4, kind: str = "FloatStorage") -> bytes:
    return wrap({"x": View("0", kind, count, *geometry)}, {"0": np.ones(4, np.float32)})


@FORMATS
@pytest.mark.parametrize(
    ("geometry", "message"),
    [
        (((5,), (1,)), r"'x' of shape \(5,\), strides \(1,\) from 0 does not fit its storage of 4"),
        (((2, 2), (4, 1)), "does not fit its storage of 4"),
        (((4,), (1,), 1), "from 1 does not fit"),
        (((1 << 20, 1 << 20), (0, 0)), "does not fit its storage of 4"),  # 4 TB out of 16 bytes
        (((2,), (1, 1)), "does not fit"),
        (((-1,), (1,)), r"'x': shape \(-1,\)"),
        (((2,), (-1,)), r"strides \(-1,\)"),
        (((2,), (1,), -1), "offset -1"),
        (((2.0,), (1,)), "shape"),
        (((10**400,), (1,)), "shape"),
        ((2, 1), "are not lists"),
        (((1,) * 40, (1,) * 40), "are not lists"),
        (((0, 2**39, 2**39), (1, 1, 1)), "is too big"),
    ],
)
def test_geometry_out_of_bounds(wrap: Wrap, geometry: tuple, message: str, tmp_path: Path):
    tracemalloc.start()
    with pytest.raises(DataError, match=message) as caught:
        loaded(one(wrap, *geometry), tmp_path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1 << 20
    assert "\n" not in str(caught.value)


@FORMATS
def test_storages_that_do_not_fit(wrap: Wrap, tmp_path: Path):
    for count in (3, 5, 1 << 60):
        with pytest.raises(DataError, match=r"(data/0|storage '0')"):
            loaded(one(wrap, (1,), (1,), count=count), tmp_path)
    with pytest.raises(DataError, match=r"asks for torch\.ComplexFloatStorage"):
        loaded(one(wrap, (1,), (1,), kind="ComplexFloatStorage"), tmp_path)
    lost = {"x": View("1", "FloatStorage", 4, (4,), (1,))}
    with pytest.raises(DataError, match=r"(lacks 'archive/data/1'|'0' is listed but)"):
        loaded(wrap(lost, {"0": np.ones(4, np.float32)}), tmp_path)
    both = {"x": View("0", "FloatStorage", 4, (4,), (1,))}
    both["y"] = View("0", "IntStorage", 4, (4,), (1,))
    with pytest.raises(DataError, match="'0' is described in two ways"):
        loaded(wrap(both, {"0": np.ones(4, np.float32)}), tmp_path)


@FORMATS
@pytest.mark.parametrize("tree", [None, 3, {}, {"a": 1}, [{"b": ["c"]}], {1: None}])
def test_nothing_to_load(wrap: Wrap, tree: Any, tmp_path: Path):
    with pytest.raises(DataError, match="holds no dictionary of named tensors"):
        loaded(wrap(tree, {}), tmp_path)


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        (3, "the list of storages is a int"),
        (["1"], "'1' is listed but no tensor uses it"),
        (["0", "0"], "'0' is listed but no tensor uses it, or twice"),
        ([], "'0' is not in the file"),
        ([["0"]], "is listed but"),
    ],
)
def test_legacy_key_lists(keys: Any, message: str, tmp_path: Path):
    tree = {"x": View("0", "FloatStorage", 4, (4,), (1,))}
    with pytest.raises(DataError, match=message):
        loaded(legacy_bytes(tree, {"0": np.ones(4, np.float32)}, keys), tmp_path)


def test_zip_bombs(tmp_path: Path):
    zeros = {"0": np.zeros(1 << 22, np.float32)}
    tree = {"x": View("0", "FloatStorage", 1 << 22, (1 << 22,), (1,))}
    bomb = zip_bytes(tree, zeros, compression=zipfile.ZIP_DEFLATED)
    tracemalloc.start()
    with pytest.raises(DataError, match=r"entry 'archive/data\.pkl' is compressed"):
        loaded(bomb, tmp_path)
    with pytest.raises(DataError, match=r"entries of \d+ bytes in a file of \d+: a zip bomb"):
        loaded(overlapping(), tmp_path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1 << 20


def overlapping() -> bytes:
    """An archive whose directory lists one entry's bytes 200 times."""
    raw = bytearray(zip_bytes({}, {"0": np.zeros(1000, np.float32)}))
    end = raw.rindex(b"PK\x05\x06")
    (start,) = struct.unpack_from("<I", raw, end + 16)
    last = raw.rindex(b"PK\x01\x02")
    listing = bytes(raw[start:end]) + bytes(raw[last:end]) * 200
    count, length = 202, len(listing)
    tail = struct.pack("<4s4H2IH", b"PK\x05\x06", 0, 0, count, count, length, start, 0)
    return bytes(raw[:start]) + listing + tail


def test_other_zips(tmp_path: Path):
    buffer = io.BytesIO()
    np.savez(buffer, x=np.ones(3))
    with pytest.raises(DataError, match=r"archive with 0 data\.pkl, expected 1: not PyTorch's"):
        loaded(buffer.getvalue(), tmp_path)
    with pytest.raises(DataError, match="byteorder is b'middle', expected little or big"):
        loaded(zip_bytes({}, {}, more={"byteorder": b"middle"}), tmp_path)


@FORMATS
@pytest.mark.parametrize("name", ["__torch__.torchvision.ResNet", "torch.nn.modules.linear.Linear"])
def test_whole_models_are_refused(wrap: Wrap, name: str, tmp_path: Path):
    with pytest.raises(DataError, match=f"asks for {name}, .* save the state_dict alone"):
        loaded(wrap(Call(name, ()), {}), tmp_path)


def test_legacy_files_of_newer_pickle_protocols(tmp_path: Path):
    raw = legacy_bytes(*tensors(arrays()))
    frame = b"\x80\x04\x95" + struct.pack("<Q", 13)
    assert list(loaded(frame + raw.removeprefix(b"\x80\x02"), tmp_path)) == list(arrays())


@FORMATS
def test_truncation_anywhere(wrap: Wrap, tmp_path: Path):
    raw = wrap(*tensors({"x": np.arange(6, dtype=np.float32), "y": np.arange(3)}))
    for length in range(0, len(raw), 3):
        with pytest.raises(DataError, match=r"^[^\n]*x\.pth: [^\n]*$"):
            loaded(raw[:length], tmp_path)
