"""PyTorch's networks here: torchvision's names, shapes and logits, from stored numbers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import minires as mr
from benchmarks import interop
from minires import models, nn, weights
from minires.weights.files import WeightFile, kind_of
from tests.reference import pure
from tests.reference.interop import PUBLISHED, TORCHVISION, file_state, images, listing
from tests.reference.store import Reference
from tests.tolerances import INTEROP

__all__: list[str] = []

LARGE = ("resnet34", "resnet101", "resnet152", "wide_resnet50_2")
STORED = Reference("interop")


def assert_agrees(name: str, model: models.ImageClassifier, x: np.ndarray) -> None:
    x = x.astype(np.float32)
    model.eval()
    with mr.no_grad():
        stages, logits = model.features(x), model(x).numpy()
    assert logits.shape == STORED.shapes[f"{name}/logits"]
    theirs = STORED[f"{name}/logits"].reshape(logits.shape)
    np.testing.assert_allclose(logits, theirs, rtol=0, atol=INTEROP * np.abs(theirs).max())
    for i, stage in enumerate(stages):
        key = f"{name}/layer{i + 1}"
        assert stage.shape == STORED.shapes[key]
        ours = pure.sketch(stage.numpy(), **STORED.sizes)
        assert pure.relative_rms(ours, STORED[key]) < INTEROP


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=pytest.mark.slow if n in LARGE else ()) for n in TORCHVISION]
)
def test_torchvision_layouts(name: str):
    with nn.init.skip():
        model = models.build(name, 1000, "imagenet")
    shapes = {n: array.shape for n, array in weights.file_arrays(model).items()}
    assert listing(shapes) == STORED[f"{name}/names"].item()
    arrays = file_state(shapes)
    kinds = {n: str(kind_of(array.dtype)) for n, array in arrays.items()}
    assert weights.load(model, WeightFile("pure", arrays, kinds, {}, "zip")).complete
    assert_agrees(name, model, images())


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_networks(name: str, shared: Path):
    with nn.init.skip():
        model = models.build(name, 10)
    weights.load(model, shared / "data" / "weights" / PUBLISHED[name])
    assert_agrees(name, model, images(32))


@pytest.mark.slow
def test_the_benchmark(capsys: pytest.CaptureFixture[str]):
    for package in ("torch", "onnx", "onnxruntime"):
        pytest.importorskip(package, reason=f"needs {package}")
    assert interop.main(["resnet18"]) == 0
    assert capsys.readouterr().out.endswith("11 rows, 0 out of bounds\n")


def test_rows_that_are_out_of_bounds(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    rows = [interop.Row("resnet18", "logits", error, 1e-4) for error in (0, 1e-3, np.nan)]
    monkeypatch.setattr(interop, "rows", lambda *_: rows)
    assert interop.main(["resnet18"]) == 1
    assert capsys.readouterr().out.count("OUT") == 2
    assert not interop.differing({"a": np.ones(2)}, {"a": np.ones(2)})
    for other in ({}, {"a": np.ones(2, np.float32)}, {"a": np.array([1, -1.0])}, {"a": np.ones(1)}):
        assert interop.differing({"a": np.ones(2)}, other) == 1
