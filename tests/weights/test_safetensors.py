"""safetensors: what goes in comes out, the format's own library agrees, and damage is named."""

from __future__ import annotations

import json
import os
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from minires.errors import DataError, DTypeError
from minires.weights.files import atomic_write, kind_of
from minires.weights.safetensors import HEADER_LIMIT, read_safetensors, save_safetensors

from .builders import safetensors_bytes

__all__: list[str] = []

KINDS = ("f8", "f4", "i8", "i4", "i2", "i1", "u8", "u4", "u2", "u1", "?")


def sample() -> dict[str, np.ndarray]:
    arrays = {kind: np.arange(6).reshape(2, 3).astype(kind) for kind in KINDS}
    strided = np.arange(24, dtype=np.float32).reshape(4, 6)[::2, ::3]
    odd = {"scalar": np.array(7), "empty": np.zeros((0, 3), np.float32), "strided": strided}
    return {**arrays, **odd, "transposed": np.eye(3, 4, 1).T, "a name, é\n": np.ones(1)}


def contents(path: Path) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    file = read_safetensors(path)
    assert file.format == "safetensors"
    assert file.kinds == {name: kind_of(array.dtype) for name, array in file.arrays.items()}
    return file.arrays, file.metadata


def assert_same(got: dict[str, np.ndarray], want: dict[str, np.ndarray]) -> None:
    assert set(got) == set(want)
    for name, array in want.items():
        assert got[name].dtype == array.dtype, name
        assert got[name].shape == array.shape, name
        np.testing.assert_array_equal(got[name], array, err_msg=name)


def test_round_trip(tmp_path: Path):
    path = tmp_path / "all.safetensors"
    save_safetensors(path, sample(), {"epoch": "3", "arguments": '{"lr": 0.1}'})
    arrays, metadata = contents(path)
    assert_same(arrays, sample())
    assert metadata == {"epoch": "3", "arguments": '{"lr": 0.1}'}
    assert not any(array.flags.writeable for array in arrays.values())


def test_big_endian_arrays_are_written_little(tmp_path: Path):
    save_safetensors(tmp_path / "a", {"x": np.arange(3, dtype=">i4")})
    np.testing.assert_array_equal(read_safetensors(tmp_path / "a").arrays["x"], [0, 1, 2])


def test_equal_contents_give_equal_aligned_files(tmp_path: Path):
    arrays = sample()
    save_safetensors(tmp_path / "a", arrays, {"x": "1", "y": "2"})
    save_safetensors(tmp_path / "b", dict(reversed(arrays.items())), {"y": "2", "x": "1"})
    raw = (tmp_path / "a").read_bytes()
    assert raw == (tmp_path / "b").read_bytes()
    length = int.from_bytes(raw[:8], "little")
    header = json.loads(raw[8 : 8 + length])
    del header["__metadata__"]
    assert length % 8 == 0
    for name, entry in header.items():
        assert entry["data_offsets"][0] % arrays[name].itemsize == 0


def test_half_types_become_float32(tmp_path: Path):
    header = {
        "half": {"dtype": "F16", "shape": [2], "data_offsets": [0, 4]},
        "bfloat": {"dtype": "BF16", "shape": [2], "data_offsets": [4, 8]},
    }
    half = np.array([0.5, -2.0], np.float16).tobytes()
    bfloat = np.array([0.5, -2.0], np.float32).view(np.uint16)[1::2].tobytes()
    (tmp_path / "a").write_bytes(safetensors_bytes(header, half + bfloat))
    arrays = read_safetensors(tmp_path / "a").arrays
    for name in header:
        assert arrays[name].dtype == np.float32
        np.testing.assert_array_equal(arrays[name], [0.5, -2.0])


def test_agrees_with_the_library(tmp_path: Path):
    library = pytest.importorskip("safetensors.numpy", reason="safetensors is not installed")
    arrays = {name: np.ascontiguousarray(array) for name, array in sample().items()}
    arrays["scalar"] = sample()["scalar"]
    save_safetensors(tmp_path / "ours", arrays, {"k": "v"})
    assert_same(library.load_file(tmp_path / "ours"), arrays)
    library.save_file(arrays, tmp_path / "theirs", {"k": "v"})
    ours, metadata = contents(tmp_path / "theirs")
    assert_same(ours, arrays)
    assert metadata == {"k": "v"}


def entry(shape: object = (1,), offsets: object = (0, 4), dtype: object = "F32") -> dict:
    return {"dtype": dtype, "shape": shape, "data_offsets": offsets}


DAMAGED = {
    "short": (b"\x01\x02", "2 bytes are too few"),
    "header over the limit": (
        safetensors_bytes({}, length=1 << 30),
        f"header of {1 << 30} bytes is over the limit of {HEADER_LIMIT}",
    ),
    "header over the file": (
        safetensors_bytes({}, length=99),
        "header of 99 bytes in a file of 10",
    ),
    "not JSON": (safetensors_bytes(b"{nope}"), "not valid JSON"),
    "not UTF-8": (safetensors_bytes(b'{"\xff": 1}'), "not valid JSON"),
    "not an object": (safetensors_bytes(b"[1]  "), "JSON list, expected an object"),
    "deep": (safetensors_bytes(b'{"a":' + b"[" * 100_000), "not valid JSON"),
    "huge number": (safetensors_bytes(b'{"a":' + b"9" * 10_000 + b"}"), "not valid JSON"),
    "name twice": (safetensors_bytes(b'{"a": 1, "a": 2}'), "'a' appears twice"),
    "metadata": (safetensors_bytes({"__metadata__": {"epoch": 3}}), "__metadata__ must map"),
    "entry": (safetensors_bytes({"x": 5}), "'x': expected dtype, shape and data_offsets, got 5"),
    "entry's keys": (safetensors_bytes({"x": {"dtype": "F32"}}), "'x': expected dtype, shape"),
    "type": (safetensors_bytes({"x": entry(dtype="F8_E4M3")}), "'x' is of type 'F8_E4M3'"),
    "type's type": (safetensors_bytes({"x": entry(dtype=[])}, b"1234"), "'x' is of type"),
    "negative size": (safetensors_bytes({"x": entry([-1])}, b"1234"), "shape .-1. is not"),
    "bool size": (safetensors_bytes({"x": entry([True])}, b"1234"), "shape .True. is not"),
    "rank": (safetensors_bytes({"x": entry([1] * 65)}, b"1234"), "shape .* is not"),
    "offsets": (safetensors_bytes({"x": entry(offsets=[4, 0])}, b"1234"), r"\[4, 0\] are not"),
    "size": (safetensors_bytes({"x": entry([2])}, b"1234"), r"\(2,\) takes 8 bytes.* span 4"),
    "giant": (safetensors_bytes({"x": entry([2**62] * 9)}, b"1234"), "takes .* bytes"),
    "empty giant": (safetensors_bytes({"x": entry([0, 2**62], [0, 0])}), "is too big"),
    "out of range": (
        safetensors_bytes({"x": entry()}, b"12"),
        "'x' ends at byte 4 of 2: truncated",
    ),
    "overlap": (
        safetensors_bytes({"x": entry(), "y": entry(offsets=[2, 6])}, b"123456"),
        "'y' overlaps its neighbour: it begins at byte 2, expected 4",
    ),
    "hole": (
        safetensors_bytes({"x": entry(), "y": entry(offsets=[8, 12])}, b"1" * 12),
        "'y' leaves a hole before it: it begins at byte 8, expected 4",
    ),
    "rest": (safetensors_bytes({"x": entry()}, b"123456"), "6 bytes of numbers, but .* fill 4"),
}


@pytest.mark.parametrize("kind", DAMAGED)
def test_damage_is_named(kind: str, tmp_path: Path):
    raw, message = DAMAGED[kind]
    path = tmp_path / "damaged.safetensors"
    path.write_bytes(raw)
    with pytest.raises(DataError, match=message) as caught:
        read_safetensors(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)


def test_claims_cost_no_memory(tmp_path: Path):
    path = tmp_path / "claims"
    for header in ({"x": entry([1 << 34], [0, 1 << 36])}, {"x": entry([0] + [1 << 30] * 2)}):
        path.write_bytes(safetensors_bytes(header, b"1234"))
        tracemalloc.start()
        with pytest.raises(DataError):
            read_safetensors(path)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 1 << 20


def test_what_the_format_lacks_is_refused(tmp_path: Path):
    with pytest.raises(DTypeError, match="'x' of complex128 cannot be written"):
        save_safetensors(tmp_path / "a", {"x": np.ones(2, complex)})
    with pytest.raises(DTypeError, match="metadata must be text: 'epoch': 3"):
        save_safetensors(tmp_path / "a", {}, {"epoch": 3})  # type: ignore[dict-item]
    assert not list(tmp_path.iterdir())


def test_a_failed_write_leaves_the_old_file(tmp_path: Path):
    path = tmp_path / "weights"
    path.write_bytes(b"old")

    def interrupted() -> None:
        with atomic_write(path) as file:
            file.write(b"new")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert [p.name for p in tmp_path.iterdir()] == ["weights"]
    assert path.read_bytes() == b"old"
    with atomic_write(path) as file:
        file.write(b"new")
    assert [p.name for p in tmp_path.iterdir()] == ["weights"]
    assert path.read_bytes() == b"new"


def test_writing_through_a_link_keeps_the_link(tmp_path: Path):
    (tmp_path / "real").write_bytes(b"old")
    (tmp_path / "link").symlink_to("real")
    save_safetensors(tmp_path / "link", {})
    assert (tmp_path / "link").is_symlink()
    assert contents(tmp_path / "real") == ({}, {})


def test_places_that_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    with pytest.raises(DataError, match=r"none/a: cannot be written: No such file"):
        save_safetensors(tmp_path / "none" / "a", {})
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(DataError, match="cannot be written: Not a directory"):
        save_safetensors(tmp_path / "file" / "a", {})

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(DataError, match="a: cannot be written: No space left on device"):
        save_safetensors(tmp_path / "a", {})
    assert [p.name for p in tmp_path.iterdir()] == ["file"]
