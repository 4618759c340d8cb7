"""Weights into models and back: what fits is loaded, what does not is told apart and named."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from minires import models, nn, weights
from minires.errors import DataError
from minires.weights import Report, load_file, save_safetensors

from .builders import legacy_bytes, tensors, zip_bytes

__all__: list[str] = []


class Net(nn.Module):
    """A convolution, its norm and a classifier."""

    def __init__(self, classes: int = 4):
        self.conv1 = nn.Conv2d(3, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(2)
        self.fc = nn.Linear(2, classes)


def state_file(classes: int = 4) -> dict[str, np.ndarray]:
    """Such a network's weights as PyTorch would keep them, without the counter, as before 0.4.1."""
    rng = np.random.default_rng(1)
    shapes = {"conv1.weight": (2, 3, 3, 3), "fc.weight": (classes, 2), "fc.bias": (classes,)}
    shapes |= {f"bn1.{n}": (2,) for n in ("weight", "bias", "running_mean", "running_var")}
    return {name: rng.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}


def assert_holds(model: nn.Module, file: dict[str, np.ndarray]) -> None:
    state = model.state_dict()
    np.testing.assert_array_equal(state["conv1.weight"], file["conv1.weight"].transpose(2, 3, 1, 0))
    np.testing.assert_array_equal(state["fc.weight"], file["fc.weight"].T)
    for name in ("fc.bias", "bn1.running_var"):
        np.testing.assert_array_equal(state[name], file[name])


@pytest.mark.parametrize("wrap", [zip_bytes, legacy_bytes], ids=["zip", "legacy"])
@pytest.mark.parametrize("prefix", ["", "module."])
def test_pytorch_files(wrap: Callable[..., bytes], prefix: str, tmp_path: Path):
    file = state_file()
    renamed = {prefix + name.replace("fc.", "linear."): array for name, array in file.items()}
    views, storages = tensors(renamed)
    (tmp_path / "x.th").write_bytes(wrap({"best": 1.5, "net": views}, storages))
    model = Net()
    report = weights.load(model, tmp_path / "x.th")
    assert_holds(model, file)
    assert report.complete
    assert str(report) == "7 matched"


def test_averaged_models_of_pytorch(tmp_path: Path):
    """A count without the prefix that all else has."""
    file = state_file()
    named = {"n_averaged": np.array(3), **{"module." + name: a for name, a in file.items()}}
    views, storages = tensors(named)
    (tmp_path / "x.pth").write_bytes(zip_bytes(views, storages))
    model = Net()
    assert str(weights.load(model, tmp_path / "x.pth")) == "7 matched"
    assert_holds(model, file)


def test_save_and_load(tmp_path: Path):
    saved, loaded = Net(), Net()
    weights.save(saved, tmp_path / "x", {"epoch": "3"})
    file = load_file(tmp_path / "x")
    assert (file.format, file.metadata) == ("safetensors", {"epoch": "3"})
    assert file.arrays["conv1.weight"].shape == (2, 3, 3, 3)
    assert file.arrays["fc.weight"].shape == (4, 2)
    assert file.arrays["bn1.num_batches_tracked"].dtype == np.int64
    weights.load(loaded, tmp_path / "x")
    for name, array in saved.state_dict().items():
        np.testing.assert_array_equal(loaded.state_dict()[name], array)
        assert array.dtype == file.arrays[name].dtype


def test_numbers_take_the_models_type(tmp_path: Path):
    file = {name: array.astype(np.float64) for name, array in state_file().items()}
    file["fc.bias"][0] = 1e300
    save_safetensors(tmp_path / "x", file)
    model = Net()
    weights.load(model, tmp_path / "x")
    assert {a.dtype.name for a in model.state_dict().values()} == {"float32", "int64"}
    assert np.isinf(model.state_dict()["fc.bias"][0])
    file["fc.bias"] = np.zeros(4, np.int8)
    save_safetensors(tmp_path / "x", file)
    with pytest.raises(DataError, match=r"x: fc\.bias is int8, expected float32"):
        weights.load(model, tmp_path / "x")


def test_what_does_not_fit_is_named(tmp_path: Path):
    file = state_file(classes=10)
    del file["bn1.bias"], file["fc.bias"]
    file["extra\n.weight"] = np.zeros(3, np.float32)
    save_safetensors(tmp_path / "x", file, {"model": "othernet"})
    model = Net()
    before = model.state_dict()
    with pytest.raises(DataError) as caught:
        weights.load(model, tmp_path / "x")
    assert str(caught.value) == (
        f"{tmp_path / 'x'}: weights of another model (they look like othernet): 4 matched;"
        r" 2 missing: bn1.bias, fc.bias; 1 unexpected: 'extra\n.weight';"
        " 1 of another shape: fc.weight is (10, 2) in the file, (4, 2) in the model"
    )
    for name, array in model.state_dict().items():
        np.testing.assert_array_equal(array, before[name])
    report = weights.load(model, tmp_path / "x", strict=False)
    assert report.missing == ["bn1.bias", "fc.bias"]
    assert report.unexpected == ["extra\n.weight"]
    assert report.mismatched == [("fc.weight", (10, 2), (4, 2))]
    assert not report.complete
    after = model.state_dict()
    np.testing.assert_array_equal(after["bn1.weight"], file["bn1.weight"])
    np.testing.assert_array_equal(after["fc.weight"], before["fc.weight"])


@pytest.mark.parametrize("head", ["fc", "linear", "classifier", "head.out"])
@pytest.mark.parametrize("classes", [4, 10])
def test_reset_head(head: str, classes: int, tmp_path: Path):
    file = {n.replace("fc", head): array for n, array in state_file(classes).items()}
    save_safetensors(tmp_path / "x", file)
    model = Net()
    before = model.state_dict()
    report = weights.load(model, tmp_path / "x", reset_head=True)
    assert report.complete
    assert str(report) == "5 matched; 2 reset: fc.weight, fc.bias"
    after = model.state_dict()
    np.testing.assert_array_equal(after["bn1.weight"], file["bn1.weight"])
    for name in ("fc.weight", "fc.bias"):
        np.testing.assert_array_equal(after[name], before[name])


def test_reset_head_asks_for_the_rest(tmp_path: Path):
    file = state_file()
    del file["fc.weight"], file["fc.bias"], file["bn1.bias"]
    save_safetensors(tmp_path / "x", {**file, "extra": np.zeros(3, np.float32)})
    with pytest.raises(DataError, match=r"4 matched; 1 missing: bn1\.bias; 1 unexpected: extra;"):
        weights.load(Net(), tmp_path / "x", reset_head=True)


@pytest.mark.parametrize(("kind", "code"), [("float16", "float16"), ("uint16", "bfloat16")])
def test_half_types_are_noted(kind: str, code: str, tmp_path: Path):
    file = {n: np.ones_like(array) for n, array in state_file().items()}
    one = np.array([0x3F80], np.uint16) if code == "bfloat16" else np.ones(1, np.float16)
    file["bn1.num_batches_tracked"] = np.array(3)
    halves = {n: np.broadcast_to(one, a.shape) for n, a in file.items() if a.ndim}
    views, storages = tensors({**file, **halves})
    (tmp_path / "x.pth").write_bytes(zip_bytes(views, storages))
    read = load_file(tmp_path / "x.pth")
    assert {row[0]: row for row in read.tensors()}["fc.bias"] == ("fc.bias", code, (4,), 8)
    model = Net()
    report = weights.load(model, read)
    assert str(report) == f"8 matched; 7 converted from {code}"
    np.testing.assert_array_equal(model.state_dict()["fc.weight"], 1)


def test_a_long_report_is_cut():
    names = [f"layer{i}.weight" for i in range(200)]
    assert str(Report([], names, names, [])).count("layer") == 6
    assert ", ..." in str(Report([], names, [], []))


def test_weights_of_another_model_are_recognised(tmp_path: Path):
    weights.save(models.resnet20(num_classes=10), tmp_path / "x")
    with pytest.raises(
        DataError, match=r"another model \(they look like resnet20 for 10 classes\)"
    ):
        weights.load(models.resnet20(num_classes=100), tmp_path / "x")
    with pytest.raises(DataError, match=r"\d+ missing: layer1\.3\.conv1\.weight"):
        weights.load(models.resnet32(num_classes=10), tmp_path / "x")


def test_flattened_maps_are_permuted_or_refused(tmp_path: Path, rng: np.random.Generator):
    def net(**options: object) -> nn.Sequential:
        conv, flatten = nn.Conv2d(3, 2, 1), nn.Flatten()
        return nn.Sequential(conv, flatten, nn.Linear(8, 3, **options))  # type: ignore[arg-type]

    model = net(flattened_from=(2, 2, 2))
    weights.save(model, tmp_path / "x")
    file, memory = load_file(tmp_path / "x").arrays["2.weight"], model.state_dict()["2.weight"]
    x = rng.normal(size=(1, 2, 2, 2))
    theirs = x.transpose(0, 3, 1, 2).reshape(1, -1) @ file.T
    np.testing.assert_allclose(x.reshape(1, -1) @ memory, theirs)
    again = net(flattened_from=(2, 2, 2))
    weights.load(again, tmp_path / "x")
    np.testing.assert_array_equal(again.state_dict()["2.weight"], memory)
    with pytest.raises(DataError, match=r"say nn\.Linear\(\.\.\., flattened_from=\(h, w, c\)\)"):
        weights.load(net(), tmp_path / "x")
    with pytest.raises(DataError, match=r"layer 2 \(Linear, 8 inputs\) follows a Flatten"):
        weights.save(net(), tmp_path / "y")
    assert not (tmp_path / "y").exists()


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (b"", "the file is empty"),
        (b"<!DOCTYPE html>", r"neither .* \(a web page: the download went wrong\)"),
        (b"version https://git-lfs.github.com/spec/v1\n", "a Git LFS pointer"),
        (b"\x80\x04}.", r"a pickle that torch\.save did not write"),
        (b"x" * 257 + b"ustar" + b"x" * 300, "a tar archive, as PyTorch before 0.2 made"),
        (b"hello", "neither safetensors nor a PyTorch file: it begins with b'hello'"),
        (b"PK\x03\x04" + b"x" * 100, "damaged zip archive: 'File is not a zip file'"),
    ],
)
def test_other_files(raw: bytes, message: str, tmp_path: Path):
    (tmp_path / "x.pth").write_bytes(raw)
    with pytest.raises(DataError, match=rf"x\.pth: .*{message}"):
        load_file(tmp_path / "x.pth")


def test_places_that_hold_no_file(tmp_path: Path):
    with pytest.raises(DataError, match="none: cannot be read: No such file or directory"):
        load_file(tmp_path / "none")
    with pytest.raises(DataError, match="cannot be read: Is a directory"):
        load_file(tmp_path)
    with pytest.raises(DataError, match="cannot be written"):
        weights.save(Net(), tmp_path / "none" / "x")


@pytest.mark.parametrize(
    ("name", "file"), [("resnet20", "resnet20-12fca82f.th"), ("resnet56", "resnet56-4bfd9763.th")]
)
def test_published_weights(name: str, file: str, shared: Path, tmp_path: Path):
    model = models.build(name, 10)
    report = weights.load(model, shared / "data" / "weights" / file)
    assert report.complete
    assert len(report.matched) == {"resnet20": 97, "resnet56": 277}[name]
    weights.save(model, tmp_path / "again")
    theirs = load_file(shared / "data" / "weights" / file).arrays
    ours = load_file(tmp_path / "again").arrays
    for long, array in theirs.items():
        short = long.removeprefix("module.").replace("linear.", "fc.")
        np.testing.assert_array_equal(ours[short], array)
