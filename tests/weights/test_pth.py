"""Our .pth files: what goes in comes out, aligned, the same each time, and PyTorch reads it."""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np
import pytest

from minires import models, weights
from minires.errors import DataError, DTypeError
from minires.weights import load_file, save_pth

__all__: list[str] = []

KINDS = ("f8", "f4", "i8", "i4", "i2", "i1", "u1", "?")


def sample() -> dict[str, np.ndarray]:
    arrays = {kind: np.arange(6).reshape(2, 3).astype(kind) for kind in KINDS}
    strided = np.arange(24, dtype=np.float32).reshape(4, 6)[::2, ::3]
    odd = {"scalar": np.array(7), "empty": np.zeros((0, 3), np.float32), "strided": strided}
    return {**arrays, **odd, "transposed": np.eye(3, 4, 1).T, "a name, é\n": np.ones(1)}


def assert_same(got: dict[str, np.ndarray], want: dict[str, np.ndarray]) -> None:
    assert list(got) == list(want)
    for name, array in want.items():
        assert got[name].dtype == array.dtype, name
        assert got[name].shape == array.shape, name
        np.testing.assert_array_equal(got[name], array, err_msg=name)


def test_round_trip(tmp_path: Path):
    save_pth(tmp_path / "a.pth", {**sample(), "half": np.ones(2, np.float16)})
    file = load_file(tmp_path / "a.pth")
    assert (file.format, file.kinds["half"], file.kinds["?"]) == ("zip", "F16", "BOOL")
    assert_same(file.arrays, {**sample(), "half": np.ones(2, np.float32)})


def test_big_endian_arrays_are_written_little(tmp_path: Path):
    save_pth(tmp_path / "a", {"x": np.arange(3, dtype=">i4")})
    np.testing.assert_array_equal(load_file(tmp_path / "a").arrays["x"], [0, 1, 2])


def test_equal_contents_give_equal_aligned_files(tmp_path: Path):
    for name in "ab":
        save_pth(tmp_path / name, sample())
    raw = (tmp_path / "a").read_bytes()
    assert raw == (tmp_path / "b").read_bytes()
    with zipfile.ZipFile(tmp_path / "a") as archive:
        assert archive.testzip() is None
        entries = archive.infolist()
    names = [f"archive/data/{i}" for i in range(len(sample()))]
    expected = ["archive/data.pkl", "archive/byteorder", *names, "archive/version"]
    assert [entry.filename for entry in entries] == expected
    for entry in entries:
        head = raw[entry.header_offset :][:30]
        lengths = int.from_bytes(head[26:28], "little") + int.from_bytes(head[28:30], "little")
        assert (entry.header_offset + 30 + lengths) % 64 == 0, entry.filename


@pytest.mark.parametrize("kind", ["c8", "u4", "U3", "O"])
def test_what_pytorch_lacks_is_refused(kind: str, tmp_path: Path):
    with pytest.raises(DTypeError, match="save_pth: tensor 'x' of .* cannot be written"):
        save_pth(tmp_path / "a", {"x": np.zeros(2, kind)})
    assert not list(tmp_path.iterdir())


def test_places_that_cannot_be_written(tmp_path: Path):
    with pytest.raises(DataError, match="cannot be written"):
        save_pth(tmp_path / "none" / "a.pth", sample())


def test_a_model(tmp_path: Path):
    saved, loaded = models.resnet20(), models.resnet20()
    weights.save(saved, tmp_path / "a.pth", format="pth")
    assert weights.load(loaded, tmp_path / "a.pth").complete
    assert_same(loaded.state_dict(), saved.state_dict())
    with pytest.raises(ValueError, match="format is 'pt' but must be one of safetensors, pth"):
        weights.save(saved, tmp_path / "b", format="pt")
    with pytest.raises(ValueError, match="no place for metadata"):
        weights.save(saved, tmp_path / "b", {"epoch": "3"}, format="pth")


@pytest.mark.parametrize("mapped", [False, True])
def test_pytorch_reads_it(mapped: bool, tmp_path: Path):
    torch = pytest.importorskip("torch", reason="needs PyTorch")
    save_pth(tmp_path / "a.pth", sample())
    got = torch.load(tmp_path / "a.pth", weights_only=True, mmap=mapped)
    assert_same({name: tensor.numpy() for name, tensor in got.items()}, sample())
    torch.save(got, tmp_path / "b.pth")
    assert_same(load_file(tmp_path / "b.pth").arrays, sample())
