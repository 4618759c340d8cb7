"""Mutated files: whatever stands in them, reading gives arrays or a DataError of one line."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from minires.errors import DataError
from minires.weights import load_file

from .builders import View, legacy_bytes, safetensors_bytes, tensors, zip_bytes

__all__: list[str] = []

ROUNDS = 400
POISON = (
    b"\x00",
    b"\xff" * 4,
    b"\xff" * 8,
    b"\x00" * 8,
    b"\x80\x02",
    b"}",
    b"R",
    b".",
    b"Q",
    b"9" * 9,
)


def seeds() -> dict[str, bytes]:
    arrays = {"conv.weight": np.arange(24, dtype=np.float32).reshape(2, 3, 2, 2), "n": np.array(3)}
    views, storages = tensors(arrays)
    views["view"] = View("0", "FloatStorage", 24, (3,), (5,), 1)
    tree = {"epoch": 1, "best": 0.5, "state_dict": views}
    header = {
        "__metadata__": {"epoch": "1"},
        "x": {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]},
        "y": {"dtype": "BF16", "shape": [4], "data_offsets": [24, 32]},
        "z": {"dtype": "BOOL", "shape": [], "data_offsets": [32, 33]},
    }
    return {
        "zip": zip_bytes(tree, storages, more={"byteorder": b"little", "version": b"3\n"}),
        "legacy": legacy_bytes(tree, storages),
        "safetensors": safetensors_bytes(header, bytes(range(33))),
        "by pytorch, zip": (FILES / "zip.pth").read_bytes(),
        "by pytorch, legacy": (FILES / "legacy.pth").read_bytes(),
    }


FILES = Path(__file__).parent / "files"
SEEDS = seeds()


def mutated(raw: bytes, rng: np.random.Generator) -> bytes:
    """One to four bytes changed, pieces cut, doubled, swapped or overwritten."""
    for _ in range(rng.integers(1, 5)):
        start, length = int(rng.integers(len(raw))), int(rng.integers(1, 17))
        piece = raw[start : start + length]
        match rng.integers(6):
            case 0:
                raw = raw[:start] + bytes([int(rng.integers(256))]) + raw[start + 1 :]
            case 1:
                flipped = piece[0] ^ (1 << int(rng.integers(8)))
                raw = raw[:start] + bytes([flipped]) + raw[start + 1 :]
            case 2:
                raw = raw[:start] + raw[start + length :] or b"\x00"
            case 3:
                other = int(rng.integers(len(raw)))
                raw = raw[:other] + piece + raw[other:]
            case 4:
                poison = POISON[rng.integers(len(POISON))]
                raw = raw[:start] + poison + raw[start + len(poison) :]
            case 5:
                raw = raw[: start + 1]
    return raw


def read(path: Path, raw: bytes) -> None:
    path.write_bytes(raw)
    arrays, message = {}, f"{path}: "
    try:
        arrays = load_file(path).arrays
    except DataError as error:
        message = str(error)
    assert message.startswith(f"{path}: ")
    assert message.isprintable()
    assert len(message) < 1000
    assert all(isinstance(array, np.ndarray) for array in arrays.values())
    assert sum(array.size for array in arrays.values()) < 1000


@pytest.mark.parametrize("kind", SEEDS)
def test_mutated_files(kind: str, tmp_path: Path):
    rng = np.random.default_rng(list(kind.encode()))
    read(tmp_path / "x", SEEDS[kind])
    for _ in range(ROUNDS):
        read(tmp_path / "x", mutated(SEEDS[kind], rng))


@pytest.mark.slow
@pytest.mark.parametrize("kind", SEEDS)
def test_ten_thousand_mutated_files(kind: str, tmp_path: Path):
    rng = np.random.default_rng([1, *kind.encode()])
    for _ in range(2000):
        read(tmp_path / "x", mutated(SEEDS[kind], rng))


def test_mutated_headers(tmp_path: Path):
    """Valid JSON with strange values in it, which blind mutation seldom makes."""
    rng = np.random.default_rng(0)
    strange = [
        None,
        True,
        -1,
        0,
        2,
        2**31,
        2**63,
        1e300,
        "",
        "F32",
        "BF16",
        [],
        [[]],
        {},
        [0, 24],
        [2],
    ]
    for _ in range(ROUNDS):
        header = {n: {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]} for n in "xy"}
        header["y"]["data_offsets"] = [8, 16]
        name = "xy"[rng.integers(2)]
        key = ["dtype", "shape", "data_offsets"][rng.integers(3)]
        value = strange[rng.integers(len(strange))]
        place = header[name][key]
        if isinstance(place, list) and rng.integers(2):
            place[rng.integers(len(place))] = value
        else:
            header[name][key] = value
        read(tmp_path / "x", safetensors_bytes(json.dumps(header).encode(), bytes(16)))
