"""Checkpoints survive truncation, flipped bytes and full disks."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from minires.errors import DataError
from minires.train import load_checkpoint, save_checkpoint
from minires.train.checkpoint import NEWEST, PREVIOUS

__all__: list[str] = []


def state(epoch: int) -> dict:
    weights = np.arange(6, dtype=np.float32).reshape(2, 3) + epoch
    return {
        "epoch": epoch,
        "rate": 0.1 + 0.2,
        "model": {"fc.weight": weights, "steps": np.array(7), "bn": np.zeros(0)},
        "optimizer": {
            "groups": [{"lr": 1e-3, "betas": [0.9, 0.99]}],
            "state": [{}, {"m": weights}],
        },
        "nothing": None,
    }


def silent(text: str) -> None:
    raise AssertionError(text)


def test_round_trip(tmp_path: Path):
    save_checkpoint(tmp_path, state(3))
    loaded = load_checkpoint(tmp_path, silent)
    np.testing.assert_equal(loaded, state(3))
    assert loaded["model"]["steps"].dtype == np.int64
    assert loaded["rate"] == 0.1 + 0.2  # JSON keeps every bit of a float64


def test_the_last_two_are_kept(tmp_path: Path):
    for epoch in (1, 2, 3):
        save_checkpoint(tmp_path, state(epoch))
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted([NEWEST, PREVIOUS])
    (tmp_path / NEWEST).unlink()
    assert load_checkpoint(tmp_path, silent)["epoch"] == 2


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-7])


def empty(path: Path) -> None:
    path.write_bytes(b"")


def flip(path: Path) -> None:
    """Change one bit of a weight: only the checksum can tell."""
    raw = bytearray(path.read_bytes())
    raw[-3] ^= 16
    path.write_bytes(bytes(raw))


@pytest.mark.parametrize("damage", [truncate, empty, flip])
def test_a_damaged_newest_falls_back_and_says_so(tmp_path: Path, damage):
    save_checkpoint(tmp_path, state(1))
    save_checkpoint(tmp_path, state(2))
    damage(tmp_path / NEWEST)
    said: list[str] = []
    assert load_checkpoint(tmp_path, said.append)["epoch"] == 1
    assert len(said) == 1
    assert NEWEST in said[0]
    assert PREVIOUS in said[0]
    save_checkpoint(tmp_path, state(2))  # must not push out the good one for the damaged one
    (tmp_path / NEWEST).unlink()
    assert load_checkpoint(tmp_path, silent)["epoch"] == 1


def test_both_damaged(tmp_path: Path):
    save_checkpoint(tmp_path, state(1))
    save_checkpoint(tmp_path, state(2))
    flip(tmp_path / NEWEST)
    flip(tmp_path / PREVIOUS)
    with pytest.raises(DataError, match="checksum"):
        load_checkpoint(tmp_path, silent)


def test_none(tmp_path: Path):
    with pytest.raises(DataError, match="nothing to resume"):
        load_checkpoint(tmp_path, silent)


def test_another_file_is_no_checkpoint(tmp_path: Path):
    from minires.weights import save_safetensors

    save_safetensors(tmp_path / NEWEST, {"w": np.ones(3, np.float32)})
    with pytest.raises(DataError, match="not a checkpoint"):
        load_checkpoint(tmp_path, silent)


def test_a_full_disk_leaves_both(tmp_path: Path, monkeypatch):
    save_checkpoint(tmp_path, state(1))
    save_checkpoint(tmp_path, state(2))

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("os.fsync", full)
        with pytest.raises((OSError, DataError), match="No space left"):
            save_checkpoint(tmp_path, state(3))
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted([NEWEST, PREVIOUS])
    assert load_checkpoint(tmp_path, silent)["epoch"] == 2
