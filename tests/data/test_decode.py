"""Pictures of every kind as the network sees them, and files that are none."""

from __future__ import annotations

import io
import re
import struct
import warnings
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageOps

from minires.data.decode import do, read_picture
from minires.data.task import Limits, Task

from .photos import gradient, noisy

__all__: list[str] = []

LIMITS = Limits(10_000)
WHOLE = Task(0, [], 16, centre=1.0)
BEST: dict[str, dict[str, Any]] = {
    "JPEG": {"quality": 100, "subsampling": 0},
    "WEBP": {"lossless": True},
}
NEAR = 3  # of 255: lossy formats, and a shrink that begins in the decoder


def look(image: Image.Image, kind: str, task: Task = WHOLE, **options: Any) -> np.ndarray:
    """`image` as that kind of file, read."""
    file = io.BytesIO()
    image.save(file, kind, **options)
    return np.asarray(read_picture(file, task, LIMITS)).astype(int)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF"])
@pytest.mark.parametrize("size", [(64, 64), (40, 30), (9, 16), (90, 70)])
def test_formats_and_sizes(kind: str, size: tuple[int, int]):
    seen = look(gradient(*size), kind, **BEST.get(kind, {}))
    expected = look(gradient(*size), "PNG")
    assert seen.shape == (16, 16, 3)
    tolerance = 24 if kind == "GIF" else 3 * NEAR  # GIF has 256 colours
    np.testing.assert_allclose(seen, expected, atol=tolerance)
    assert np.ptp(seen[..., 0]) > 100


@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_proportions_stay(kind: str):
    """The middle square of a wide picture: a third of the reds, all of the greens."""
    seen = look(gradient(90, 30), kind)
    assert seen[8, 0, 0] == pytest.approx(85, abs=6)
    assert seen[8, -1, 0] == pytest.approx(170, abs=6)
    assert seen[0, 8, 1] < 10
    assert seen[-1, 8, 1] > 245


MODES = ["1", "L", "LA", "P", "PA", "RGBA", "I;16", "I", "CMYK"]


@pytest.mark.parametrize("mode", MODES)
def test_modes(mode: str):
    grey = np.repeat(np.arange(0, 256, 4, dtype=np.uint8)[None], 64, axis=0)
    image = Image.fromarray(grey)
    kind, options = "PNG", {}
    if mode in ("I;16", "I"):
        kind = "TIFF" if mode == "I" else "PNG"
        image = Image.fromarray(grey.astype(np.uint16) * 256 + 77)
        image = image.convert("I") if mode == "I" else image
    elif mode == "CMYK":
        kind, options = "JPEG", {"quality": 100}
        image = image.convert("RGB").convert("CMYK")
    elif mode == "PA":
        kind, image = "TIFF", image.convert("P").convert("PA")
    else:
        image = image.convert(mode)
    assert image.mode == mode
    seen = look(image, kind, **options)
    assert (seen == seen[..., :1]).all()
    if mode == "1":
        assert seen[8, 0, 0] < 60 < 200 < seen[8, -1, 0]
    else:
        np.testing.assert_allclose(seen[8, :, 0], np.arange(16) * 16 + 6, atol=NEAR)


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "GIF"])
def test_transparency_is_white(kind: str):
    image = gradient(32, 32).convert("RGBA")
    image.paste((255, 0, 0, 0), (0, 0, 16, 32))
    options = {"lossless": True, "exact": True} if kind == "WEBP" else {}
    seen = look(image, kind, **options)
    assert (seen[:, :7] == 255).all()
    assert (seen[:, 9:, 2] < 160).all()


def test_a_transparent_palette_entry_is_white():
    image = Image.new("P", (16, 16), 1)
    image.putpalette([200, 0, 0, 0, 0, 200])
    image.paste(0, (0, 0, 8, 16))
    assert look(image, "PNG", transparency=0)[5, [2, 12]].tolist() == [[255] * 3, [0, 0, 200]]


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "TIFF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation(kind: str, orientation: int):
    """A part off the middle, so that a mistake in any axis shows."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    file = io.BytesIO()
    gradient(80, 48).save(file, kind, exif=exif, **BEST.get(kind, {}))
    with Image.open(file) as marked:
        upright = ImageOps.exif_transpose(marked).convert("RGB")
    for index in range(3):
        task = Task(0, [], 16, draw=(0, 0, 0, index), area=0.1)
        seen = np.asarray(read_picture(file, task, LIMITS)).astype(int)
        np.testing.assert_allclose(seen, look(upright, "PNG", task), atol=3 * NEAR)


def test_large_jpegs_are_decoded_small(monkeypatch: pytest.MonkeyPatch):
    sizes = []
    load = Image.Image.resize
    monkeypatch.setattr(
        Image.Image, "resize", lambda self, *a, **k: sizes.append(self.size) or load(self, *a, **k)
    )
    look(gradient(90, 90), "JPEG")
    look(gradient(90, 90), "JPEG", WHOLE._replace(size=40))
    assert sizes == [(23, 23), (45, 45)]


def test_jitter_and_flip():
    image = noisy(24, 24, 0)
    still = Task(0, [], 24, draw=(0, 0, 0, 0), area=1.0)
    plain = look(image, "PNG", still)
    turned = [look(image, "PNG", still._replace(draw=(0, 0, 0, i), flip=True)) for i in range(40)]
    still_draws = [
        look(image, "PNG", still._replace(draw=(0, 0, 0, i), flip=False)) for i in range(40)
    ]
    mirrored = [
        not np.array_equal(a, b) and np.array_equal(a, b[:, ::-1])
        for a, b in zip(turned, still_draws)
    ]
    assert 10 < sum(mirrored) < 30
    varied = [look(image, "PNG", still._replace(jitter=j)) for j in (0.01, 0.9)]
    assert 0 < np.abs(varied[0] - plain).max() < 12
    assert np.abs(varied[1] - plain).max() > 12
    assert np.array_equal(varied[1], look(image, "PNG", still._replace(jitter=0.9)))


def png(width: int, height: int, rows: bytes) -> bytes:
    """A grey PNG file whose header may promise anything."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        check = struct.pack(">I", zlib.crc32(kind + data))
        return struct.pack(">I", len(data)) + kind + data + check

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))
    body = chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + header + body


def bmp(width: int, height: int) -> bytes:
    """The header of a BMP file without its pixels."""
    return b"BM" + struct.pack("<IIIIIIHH", 99, 0, 54, 40, width, height, 1, 24) + bytes(24)


def whole(kind: str) -> bytes:
    file = io.BytesIO()
    noisy(40, 40, 1).save(file, kind)
    return file.getvalue()


DAMAGED = {
    "empty": (b"", "not a picture"),
    "text": (b"<html>404</html>" * 100, "not a picture"),
    "cut png": (whole("PNG")[:2000], "truncated"),
    "cut jpeg": (whole("JPEG")[:1000], "truncated|Truncated"),
    "cut webp": (whole("WEBP")[:800], "."),
    "bits": (whole("PNG")[:300] + b"\0" * 300 + whole("PNG")[600:], "."),
    "bomb png": (png(60_000, 60_000, b""), "60000x60000 is more than 10,000 pixels"),
    "bomb bmp": (bmp(40_000, 40_000), "40000x40000 is more than 10,000 pixels"),
    "huge png": (png(2**31 - 1, 2**31 - 1, b""), "more than 10,000 pixels"),
    "eps": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "not a picture"),
}


@pytest.mark.parametrize("name", DAMAGED)
def test_what_is_no_picture_has_a_reason(name: str, tmp_path: Path):
    data, reason = DAMAGED[name]
    bad, good = tmp_path / "bad.png", tmp_path / "good.png"
    bad.write_bytes(data)
    gradient(16, 16).save(good)
    memory = bytearray(3 * 768)
    with warnings.catch_warnings(record=True) as caught:
        outcome = do(Task(1, [str(bad), str(tmp_path / "none"), str(good)], 16), LIMITS, memory)
    assert not caught
    assert outcome.done
    assert re.search(reason, outcome.reasons[0]), outcome.reasons[0]
    assert outcome.reasons[1] == "No such file or directory"
    assert not any(memory[:768])
    assert any(memory[768:1536])
    assert not any(memory[1536:])
    assert not do(Task(0, [str(bad)], 16), LIMITS, memory).done
    assert not any(memory[:768])


def test_pillows_own_limit_stays_as_it_was(tmp_path: Path):
    before = Image.MAX_IMAGE_PIXELS
    (tmp_path / "bomb.png").write_bytes(png(60_000, 60_000, b""))
    do(Task(0, [str(tmp_path / "bomb.png")], 16), LIMITS, bytearray(768))
    assert before == Image.MAX_IMAGE_PIXELS


def test_the_cache_holds_what_is_large(tmp_path: Path):
    large, small = tmp_path / "large.png", tmp_path / "small.png"
    noisy(90, 50, 0).save(large)
    noisy(90, 32, 0).save(small)
    limits = Limits(10_000, str(tmp_path / "cache"))
    task = Task(0, [], 16, keep=True)
    first = [np.asarray(read_picture(file, task, limits)) for file in (large, small)]
    (copy,) = (tmp_path / "cache").rglob("*.jpg")
    with Image.open(copy) as image:
        assert image.size == (58, 32)
    again = [np.asarray(read_picture(file, task, limits)) for file in (large, small)]
    np.testing.assert_array_equal(first, again)
    np.testing.assert_array_equal(first[1], read_picture(small, task, LIMITS))

    copy.write_bytes(copy.read_bytes()[:200])  # damaged: made again
    np.testing.assert_array_equal(first[0], read_picture(large, task, limits))
    assert len(copy.read_bytes()) > 200

    noisy(90, 50, 1).save(large)  # another picture under the same name
    assert not np.array_equal(first[0], read_picture(large, task, limits))
    assert len(list((tmp_path / "cache").rglob("*.*"))) == 2
