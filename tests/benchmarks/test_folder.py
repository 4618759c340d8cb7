"""The pictures of the folder benchmark, and the pass that only decodes."""

from __future__ import annotations

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


def test_arrays_are_as_large_as_the_pictures():
    assert folder.arrays(10).images.shape == (10, 224, 224, 3)
