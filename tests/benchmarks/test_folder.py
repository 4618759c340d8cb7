"""The pictures of the folder benchmark, and the pass that only decodes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image

from benchmarks import folder
from minires.data import PictureReader

__all__: list[str] = []


def test_pictures_are_made_and_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(folder, "SIDES", (20, 60))
    monkeypatch.setattr(folder, "SIZE", 8)
    assert folder.make(tmp_path, 60, 0.0) == 0
    assert folder.make(tmp_path, 60, 1e9) == 60
    files = sorted(tmp_path.glob("*/*"), key=lambda file: file.name)
    assert [file.name for file in files[:4]] == [
        "00000.jpg",
        "00001.png",
        "00002.webp",
        "00003.jpg",
    ]
    sizes = []
    for file in files:
        if file.stem != "00037":
            with Image.open(file) as image:
                sizes.append(max(image.size))
    assert 20 <= min(sizes) < 30 < 50 < max(sizes) <= 60

    before = files[5].read_bytes()
    files[5].unlink()
    folder.make(tmp_path, 60, 1e9)
    assert files[5].read_bytes() == before

    with PictureReader() as reader:
        result = folder.fill(tmp_path, 16, reader, 1e9)
    assert (result["read"], result["skipped"]) == (59, 1)
    assert result["cpu_ms"] > 0


def test_a_whole_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys):
    """Two epochs, the second of them counted nine times, from no copies to some."""
    monkeypatch.setattr(folder, "SIDES", (20, 60))
    monkeypatch.setattr(folder, "SIZE", 12)
    monkeypatch.setattr(folder, "TURN", 3)
    monkeypatch.setattr(folder, "training_step", lambda: lambda images, labels: None)
    folder.make(tmp_path, 60, 1e9)
    assert folder.main(["--run", str(tmp_path), "--batch", "12", "--workers", "0"]) == 0
    out, err = capsys.readouterr()
    result = json.loads(out)
    assert (result["pictures"], result["epochs"], result["trained"]) == (60, 10, 2)
    assert (result["skipped"], result["damaged_but_not_listed"]) == (1, 0)
    assert 0 < result["copies"] < 60
    first, second = result["each"]
    seconds = 60 / first["folder"] + 9 * 60 / second["folder"]
    on_arrays = 60 / first["arrays"] + 9 * 60 / second["arrays"]
    assert result["ratio"] == pytest.approx(on_arrays / seconds, rel=0.01, abs=0.001)
    assert result["folder"] == pytest.approx(600 / seconds, rel=0.01)
    assert 0 < result["decode_cpu_share"] <= 1
    assert err.count("img/s, arrays") == 4


def test_arrays_are_as_large_as_the_pictures():
    assert folder.arrays(10).images.shape == (10, 224, 224, 3)
