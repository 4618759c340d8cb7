"""Picture files of all kinds, and what a network says of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from minires.errors import DataError
from minires.tensor import tensor
from minires.train import (
    Loaded,
    embed,
    find_pictures,
    load_trained,
    picture_batches,
    predict,
    read_image,
)
from minires.train import pictures as pictures_module
from minires.train.folder import Card

from .conftest import CLASSES, MakeTrainer, toy_images

__all__: list[str] = []


def test_a_picture_of_the_right_size_is_taken_as_it_is(tmp_path: Path, rng: np.random.Generator):
    pixels = rng.integers(0, 256, (32, 32, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    np.testing.assert_array_equal(read_image(tmp_path / "a.png", 32), pixels)


def test_the_middle_square_is_taken(tmp_path: Path):
    pixels = np.zeros((40, 100, 3), np.uint8)
    pixels[:, 30:70] = [200, 100, 50]
    Image.fromarray(pixels).save(tmp_path / "wide.png")
    seen = read_image(tmp_path / "wide.png", 10)
    assert seen.shape == (10, 10, 3)
    assert (abs(seen[:, 2:-2].astype(int) - [200, 100, 50]) <= 2).all()


@pytest.mark.parametrize("mode", ["L", "P", "RGBA", "LA", "1", "I;16", "CMYK"])
def test_every_kind_becomes_rgb(tmp_path: Path, mode: str):
    name = "picture.jpg" if mode == "CMYK" else "picture.png"
    if mode == "I;16":
        Image.fromarray(np.full((20, 20), 500, np.uint16)).save(tmp_path / name)
    else:
        Image.new("RGB", (20, 20), "white").convert(mode).save(tmp_path / name)
    seen = read_image(tmp_path / name, 8)
    assert seen.shape == (8, 8, 3)
    assert seen.dtype == np.uint8


def test_transparency_is_white(tmp_path: Path):
    Image.new("RGBA", (8, 8), (0, 0, 0, 0)).save(tmp_path / "clear.png")
    assert (read_image(tmp_path / "clear.png", 8) == 255).all()


def test_a_camera_held_upright(tmp_path: Path):
    image = Image.new("RGB", (8, 8), "black")
    image.paste("white", (0, 0, 8, 4))  # bright above
    exif = Image.Exif()
    exif[0x0112] = 3  # turned by 180 degrees
    image.save(tmp_path / "turned.png", exif=exif)
    seen = read_image(tmp_path / "turned.png", 8)
    assert seen[1, 4, 0] == 0
    assert seen[6, 4, 0] == 255


def test_what_is_no_picture(tmp_path: Path):
    (tmp_path / "text.png").write_text("not a picture")
    with pytest.raises(DataError, match=r"text\.png: not a picture that Pillow can read"):
        read_image(tmp_path / "text.png", 8)
    with pytest.raises(DataError, match=r"no\.png: cannot read this picture: No such file"):
        read_image(tmp_path / "no.png", 8)
    with pytest.raises(DataError, match="cannot read this picture: Is a directory"):
        read_image(tmp_path, 8)
    Image.new("RGB", (64, 64), "red").save(tmp_path / "cut.png")
    (tmp_path / "cut.png").write_bytes((tmp_path / "cut.png").read_bytes()[:60])
    with pytest.raises(DataError, match=r"cut\.png: cannot read this picture"):
        read_image(tmp_path / "cut.png", 8)


def test_predictions(trainer: MakeTrainer, tmp_path: Path):
    made = trainer(epochs=8)
    made.run()
    images = toy_images(70, seed=3)
    paths = [tmp_path / f"{i}.png" for i in range(70)]
    for path, image in zip(paths, images.images, strict=True):
        Image.fromarray(image).save(path)
    found = predict(load_trained(tmp_path / "run"), paths, top=3)
    assert [entry["file"] for entry in found] == [str(path) for path in paths]
    for entry in found:
        likely = [p["probability"] for p in entry["predictions"]]
        assert len(likely) == 3
        assert likely == sorted(likely, reverse=True)
        assert 0 < sum(likely) <= 1.0001
    first = [entry["predictions"][0]["class"] for entry in found]
    right = np.mean([name == CLASSES[label] for name, label in zip(first, images.labels)])
    assert right > 0.5


# Folders


@pytest.fixture
def album(tmp_path: Path) -> Path:
    """Two pictures, a damaged one, and what is none, at several depths."""
    folder = tmp_path / "album"
    (folder / "deep" / "er").mkdir(parents=True)
    for name, colour in (("b.png", "red"), ("deep/er/a.JPG", "blue")):
        Image.new("RGB", (20, 20), colour).save(folder / name)
    (folder / "deep" / "damaged.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    (folder / "notes.txt").write_text("no picture")
    (folder / ".hidden.png").write_text("no picture")
    return folder


def test_pictures_of_a_folder(album: Path, tmp_path: Path):
    named = tmp_path / "one.png"
    files, found = find_pictures([album, named])
    assert found == [str(album / name) for name in ("b.png", "deep/damaged.png", "deep/er/a.JPG")]
    assert files == [*found, str(named)]
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"empty: no pictures in this folder"):
        find_pictures([tmp_path / "empty"])


def test_damaged_ones_in_a_folder_are_skipped_and_named(album: Path, trainer: MakeTrainer):
    made = trainer(epochs=1)
    made.run()
    loaded = load_trained(made.folder.path)
    skipped: dict[str, str] = {}
    found = predict(loaded, [album], skipped=skipped)
    assert [Path(entry["file"]).name for entry in found] == ["b.png", "a.JPG"]
    bad = str(album / "deep" / "damaged.png")
    assert list(skipped) == [bad]
    assert skipped[bad].startswith(f"{bad}: not a picture")
    with pytest.raises(DataError, match=r"damaged\.png: not a picture"):
        predict(loaded, [album])
    with pytest.raises(DataError, match=r"damaged\.png: not a picture"):
        predict(loaded, [bad], skipped={})  # asked for by name


def test_a_bomb_is_refused(tmp_path: Path, monkeypatch):
    monkeypatch.setattr(pictures_module, "MAX_PIXELS", 99)
    Image.new("RGB", (10, 10)).save(tmp_path / "bomb.png")
    with pytest.raises(DataError, match=r"bomb\.png: .*10x10 is more than 99 pixels"):
        read_image(tmp_path / "bomb.png", 8)


def test_large_networks_see_the_centre(tmp_path: Path):
    pixels = np.zeros((256, 256, 3), np.uint8)
    pixels[16:-16, 16:-16] = 255
    Image.fromarray(pixels).save(tmp_path / "framed.png")
    assert read_image(tmp_path / "framed.png", 224).min() == 255
    assert read_image(tmp_path / "framed.png", 64).min() < 100


# Features


class Sums:
    """A network whose features are the sums of the channels."""

    def eval(self):
        return self

    def embed(self, x):
        return tensor(x.sum(axis=(1, 2)))


def test_embeddings_keep_the_order(album: Path):
    card = Card("resnet20", None, ["a"], [0.0] * 3, [1.0] * 3, 4)
    files, batches = [], []
    for some, images in picture_batches(card, [album], {}):
        files += some
        batches.append(images)
    counted: list[int] = []
    vectors = embed(Loaded(Sums(), card, "cpu"), batches, counted.append)
    assert counted == [2]
    assert vectors.dtype == np.float32
    np.testing.assert_allclose(vectors, [[16, 0, 0], [0, 0, 16]], atol=0.2)  # JPEG is not exact
    with pytest.raises(DataError, match="embed: no images"):
        embed(Loaded(Sums(), card, "cpu"), [])
