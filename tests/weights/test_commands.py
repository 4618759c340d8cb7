"""`minires export` and `minires weights`."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from minires import models, nn, weights
from minires.weights import load_file
from tests.commands import Run

from .builders import tensors, zip_bytes

__all__: list[str] = []

Fails = Callable[..., str]


@pytest.fixture
def foreign(tmp_path: Path) -> Path:
    """A file as other repositories write it."""
    with nn.init.skip():
        model = models.build("resnet20", 7, shortcut="B")
    arrays = {f"module.{n}": a.copy() for n, a in weights.file_arrays(model).items()}
    arrays["module.linear.bias"] = arrays.pop("module.fc.bias") + np.float32(0.1)
    views, storages = tensors(arrays)
    (tmp_path / "theirs.th").write_bytes(zip_bytes({"net": views, "acc": 91.5}, storages))
    return tmp_path / "theirs.th"


@pytest.mark.parametrize("to", ["safetensors", "pth"])
def test_export_of_a_run(to: str, run: Run, finished: Path, tmp_path: Path):
    target = tmp_path / "out"
    words = ("export", finished, "--to", to, "--output", target, "--which", "best")
    code, out, _ = run(*words, "--json")
    assert code == 0
    done = json.loads(out)
    assert (done["output"], done["format"]) == (str(target), to)
    assert (done["model"], done["classes"]) == ("wide_resnet10_1", 10)
    assert done["bytes"] == target.stat().st_size
    ours, theirs = load_file(finished / "best.safetensors"), load_file(target)
    assert set(ours.arrays) == set(theirs.arrays)
    for name, array in ours.arrays.items():
        np.testing.assert_array_equal(theirs.arrays[name], array)
    assert theirs.metadata == (ours.metadata if to == "safetensors" else {})
    code, out, _ = run(*words)
    assert code == 0
    assert out.startswith("wide_resnet10_1, 10 classes (")
    assert out.endswith(f": {target}, {done['bytes']:,} bytes\n")


def test_export_to_onnx(run: Run, finished: Path, tmp_path: Path):
    onnx = pytest.importorskip("onnx", reason="needs the package onnx")
    target = tmp_path / "net.onnx"
    words = ("export", finished, "--to", "onnx", "--output", target)
    assert run(*words, "--fold", "--opset", "17", "--size", "40")[0] == 0
    made = onnx.load(target)
    assert made.opset_import[0].version == 17
    props = {p.key: p.value for p in made.metadata_props}
    assert props == load_file(finished / "last.safetensors").metadata
    shape = [d.dim_value for d in made.graph.input[0].type.tensor_type.shape.dim]
    assert shape == [0, 3, 40, 40]
    assert run(*words)[0] == 0
    kinds = [node.op_type for node in onnx.load(target).graph.node]
    assert kinds.count("BatchNormalization") == 7


def test_export_of_a_file_that_says_nothing(run: Run, foreign: Path):
    code, out, _ = run("export", foreign, "--to", "safetensors")
    assert code == 0
    assert out.startswith("resnet20, 7 classes (")
    file = load_file(foreign.with_suffix(".safetensors"))
    assert file.metadata == {"model": "resnet20"}
    assert "layer2.0.downsample.0.weight" in file.arrays
    np.testing.assert_array_equal(file.arrays["fc.bias"], np.full(7, 0.1, np.float32))


def test_what_cannot_be_exported(fails: Fails, finished: Path, foreign: Path, tmp_path: Path):
    assert "--to: " in fails(2, "export", finished, "--to", "onxn")
    assert "did you mean 'onnx'?" in fails(2, "export", finished, "--to", "onxn")
    assert "only for --to onnx" in fails(2, "export", finished, "--to", "pth", "--fold")
    last = finished / "last.safetensors"
    assert "is the file that is read" in fails(2, "export", finished, "--to", "safetensors")
    assert "weights of another model (they look like resnet20 for 7 classes)" in fails(
        1, "export", foreign, "--to", "pth", "--model", "resnet56"
    )
    assert "model is 'resnet-20'" in fails(
        2, "export", foreign, "--to", "pth", "--model", "resnet-20"
    )
    assert "cannot be read" in fails(1, "export", tmp_path / "none", "--to", "pth")
    assert "not a run folder" in fails(1, "export", tmp_path, "--to", "pth")
    arrays = {"a.weight": np.ones((2, 2), np.float32)}
    weights.save_safetensors(tmp_path / "odd", arrays)
    assert "give --model NAME" in fails(2, "export", tmp_path / "odd", "--to", "pth")
    assert "cannot be written" in fails(
        1, "export", last, "--to", "pth", "--output", tmp_path / "no" / "x"
    )


def test_listing(run: Run, finished: Path, tmp_path: Path):
    code, out, _ = run("weights", finished)
    assert code == 0
    lines = out.splitlines()
    assert ["conv1.weight", "float32", "16x3x3x3", "1,728"] in [line.split() for line in lines]
    assert "model: wide_resnet10_1" in lines
    assert lines[-1].startswith("safetensors, ")
    code, out, _ = run("weights", finished / "last.safetensors", "--json")
    assert code == 0
    found = json.loads(out)
    assert found["metadata"]["model"] == "wide_resnet10_1"
    row = {"name": "conv1.weight", "dtype": "float32", "shape": [16, 3, 3, 3], "bytes": 1728}
    assert row in found["tensors"]
    numbers = sum(row["bytes"] for row in found["tensors"])
    assert numbers < (finished / "last.safetensors").stat().st_size


def test_listing_of_other_files(run: Run, fails: Fails, foreign: Path, tmp_path: Path):
    code, out, _ = run("weights", foreign)
    assert code == 0
    assert out.splitlines()[-1].endswith("looks like resnet20 for 7 classes")
    odd = {"a\x1b[31m\n": np.zeros((), np.float16)}
    weights.save_safetensors(tmp_path / "odd", odd, {"note": "two\nlines"})
    code, out, _ = run("weights", tmp_path / "odd")
    assert code == 0
    assert out.splitlines()[0].split() == [r"'a\x1b[31m\n'", "float16", "-", "2"]
    assert out.splitlines()[1] == r"'note: two\nlines'"
    assert "cannot be read" in fails(1, "weights", tmp_path / "none")
    (tmp_path / "text").write_text("hello")
    assert "neither safetensors nor a PyTorch file" in fails(1, "weights", tmp_path / "text")
