"""ONNX files: the walk through a network, and what other runtimes compute from the file."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import minires as mr
from minires import functional as F
from minires import models, nn, weights
from minires.errors import DataError
from minires.weights.emitters import EMITTERS
from minires.weights.onnx import OPSET, trace
from tests.tolerances import EXPORTED

__all__: list[str] = []

SMALL = {"resnet20", "resnet32", "resnet44", "resnet56", "resnet110", "plain20", "plain56"}
SMALL |= {"wide_resnet28_10"}
ALL = pytest.mark.parametrize("name", models.names())
BOTH = pytest.mark.parametrize("fold", [False, True])

Run = Callable[[np.ndarray], np.ndarray]


def filled(name: str, **options: Any) -> Any:
    """A model with weights and statistics that leave the logits' scale as it is."""
    rng = np.random.default_rng(0)
    with nn.init.skip():
        model = models.build(name, 10, **options)
    state = {}
    for path, array in model.state_dict().items():
        part = path.rpartition(".")[2]
        if array.ndim > 1:
            scale = math.sqrt(2 / math.prod(array.shape[:-1]))
            state[path] = rng.standard_normal(array.shape, np.float32) * scale
        elif part in ("weight", "running_var"):
            state[path] = rng.uniform(0.75, 1.25, array.shape)
        else:
            state[path] = array if array.ndim == 0 else rng.normal(0, 0.1, array.shape)
    model.load_state_dict(state)
    return model


def narrow(name: str) -> Any:
    """The model with few channels: the same nodes, quickly run."""
    widths = (16, 32, 64) if name in SMALL else (16, 32, 64, 64)
    others = {"article_net": (8, 16, 16, 16, 16), "whitened_resnet": (24, 32, 32)}
    return filled(name, widths=others.get(name, widths))


def runner(path: Path) -> Run:
    """What runs an ONNX file: ONNX Runtime, or onnx's slow reference."""
    try:
        import onnxruntime

        session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    except ImportError:
        from onnx.reference import ReferenceEvaluator

        session = ReferenceEvaluator(str(path))
    return lambda x: session.run(None, {"input": np.ascontiguousarray(x.transpose(0, 3, 1, 2))})[0]


@pytest.fixture
def onnx() -> Any:
    return pytest.importorskip("onnx", reason="needs the package onnx")


# The walk, which needs no package


@pytest.mark.usefixtures("one_thread")
@ALL
def test_every_model_can_be_walked(name: str):
    model, size = narrow(name), 16
    graph, outputs = trace(model.train(), np.zeros((1, size, size, 3), np.float32), fold=False)
    assert outputs == 10
    assert model.training
    kinds = [node.kind for node in graph.nodes]
    modules = list(model.modules())
    for kind, layer in (("Conv", nn.Conv2d), ("BatchNormalization", nn.BatchNorm2d)):
        assert kinds.count(kind) == sum(isinstance(m, layer) for m in modules)
    state = model.state_dict()
    named = {n for n in state if not n.endswith("num_batches_tracked")}
    assert named <= set(graph.constants)
    for name in named:
        np.testing.assert_array_equal(graph.constants[name], weights.to_file(name, state[name]))
    made = {"input", *graph.constants}
    for node in graph.nodes:
        assert made.issuperset(node.inputs)
        made.add(node.output)
    assert graph.nodes[-1].output == "logits"


def test_the_walk_sees_single_layers_wherever_it_is_made():
    model, x = narrow("resnet20"), np.zeros((1, 16, 16, 3), np.float32)
    with mr.no_grad():
        model.eval()(x)
        inside, _ = trace(model, x, fold=False)
    outside, _ = trace(model, x, fold=False)
    assert inside.nodes == outside.nodes


def test_folding_takes_every_batch_norm_behind_a_convolution():
    x = np.zeros((1, 16, 16, 3), np.float32)
    for name, left in (("resnet20", 0), ("article_net", 0), ("preact_resnet18", 9)):
        graph, _ = trace(narrow(name), x, fold=True)
        assert sum(node.kind == "BatchNormalization" for node in graph.nodes) == left


class Odd(nn.Module):
    """A convolution and what a test wants after it."""

    def __init__(self, then: Callable[[Any], Any]) -> None:
        self.conv = nn.Conv2d(3, 4, 3)
        self.fc = nn.Linear(4, 2)
        self.then = then

    def forward(self, x: Any) -> Any:
        return self.fc(F.global_avg_pool2d(self.then(self.conv(x))))


@pytest.mark.parametrize(
    ("then", "message"),
    [
        (F.leaky_relu, "the network uses leaky_relu; there are add, "),
        (lambda x: x[:, ::-1], r"x\[.*\] of x with 4 axes"),
        (lambda x: x + np.ones(4, np.float32), r"Add of \(4,\) broadcast to \(1, 6, 6, 4\)"),
        (lambda x: x * np.ones((1, 6, 6, 4), np.float32), "neither computed nor trained"),
        (nn.BatchNorm2d(4, track_running_stats=False), "a BatchNorm without running statistics"),
        (lambda x: F.conv2d(x, mr.tensor(np.ones((1, 1, 4, 4)), dtype="float32")), "not among"),
    ],
)
def test_what_has_no_counterpart_is_named(then: Callable[[Any], Any], message: str):
    with pytest.raises(DataError, match=f"to ONNX: .*{message}"):
        trace(Odd(then), np.zeros((1, 8, 8, 3), np.float32), fold=False)


def test_emitters_have_the_names_of_operations():
    assert set(EMITTERS) <= set(mr.op.OPS)


def test_without_the_package(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(ImportError, match=r"needs the package onnx .*pip install -e '\.\[onnx\]'"):
        weights.save_onnx(filled("resnet20"), tmp_path / "x.onnx", size=32)
    assert not list(tmp_path.iterdir())


# The files


def assert_runs_alike(model: Any, size: int, path: Path, rng: np.random.Generator) -> None:
    run = runner(path)
    for batch in (1, 3):
        x = rng.standard_normal((batch, size, size, 3), np.float32)
        with mr.no_grad():
            ours = model.eval()(x).numpy()
        np.testing.assert_allclose(run(x), ours, rtol=0, atol=EXPORTED * np.abs(ours).max())


@pytest.mark.usefixtures("one_thread", "onnx")
@BOTH
@ALL
def test_logits(name: str, fold: bool, tmp_path: Path, rng: np.random.Generator):
    model = narrow(name)
    weights.save_onnx(model, tmp_path / "x.onnx", size=32, fold=fold)
    assert_runs_alike(model, 32, tmp_path / "x.onnx", rng)


@pytest.mark.slow
@pytest.mark.usefixtures("onnx")
@BOTH
@ALL
def test_logits_at_full_width(name: str, fold: bool, tmp_path: Path, rng: np.random.Generator):
    model = filled(name)
    size = 64 if getattr(model, "pools", False) else 32
    weights.save_onnx(model, tmp_path / "x.onnx", size=size, fold=fold)
    assert_runs_alike(model, size, tmp_path / "x.onnx", rng)


class Cut(nn.Module):
    """Slices, and numbers."""

    def forward(self, x: Any) -> Any:
        return 0.5 * x[:, 1:, :5] - x[:, :-1, -5:] / 3 + 1


def test_layers_that_no_model_has(onnx: Any, tmp_path: Path, rng: np.random.Generator):
    model = nn.Sequential(
        nn.Conv2d(3, 4, (3, 2), stride=(2, 1), padding=(0, 1), dilation=(1, 2)),
        nn.BatchNorm2d(4, affine=False),
        nn.SiLU(),
        nn.AvgPool2d(2, padding=1, count_include_pad=False),
        nn.Conv2d(4, 4, 1, groups=2),
        nn.Tanh(),
        Cut(),
        nn.Sigmoid(),
        nn.MaxPool2d(2),
        nn.GlobalAvgPool2d(),
        nn.Linear(4, 2, bias=False),
    )
    weights.save_onnx(model, tmp_path / "x.onnx", size=(13, 11), fold=True)
    x = rng.standard_normal((2, 13, 11, 3), np.float32)
    ours = model.eval()(x).numpy()
    np.testing.assert_allclose(runner(tmp_path / "x.onnx")(x), ours, rtol=0, atol=EXPORTED)


def test_what_the_file_says(onnx: Any, tmp_path: Path):
    model = filled("resnet20", shortcut="B")
    for name in "ab":
        weights.save_onnx(model, tmp_path / name, size=32, metadata={"epoch": "3", "a": "é"})
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    made = onnx.load(tmp_path / "a")
    onnx.checker.check_model(made, full_check=True)
    assert made.opset_import[0].version == min(OPSET, onnx.defs.onnx_opset_version())
    assert {p.key: p.value for p in made.metadata_props} == {"epoch": "3", "a": "é"}
    (given,), (gives,) = made.graph.input, made.graph.output
    shapes = [
        [d.dim_param or d.dim_value for d in v.type.tensor_type.shape.dim] for v in (given, gives)
    ]
    assert (given.name, gives.name) == ("input", "logits")
    assert shapes == [["batch", 3, 32, 32], ["batch", 10]]
    constants = {t.name: onnx.numpy_helper.to_array(t) for t in made.graph.initializer}
    for name, array in weights.file_arrays(model).items():
        if not name.endswith("num_batches_tracked"):
            assert constants[name].dtype == array.dtype
            np.testing.assert_array_equal(constants[name], array)


@pytest.mark.parametrize("opset", [15, 18, 22])
def test_older_opsets(opset: int, onnx: Any, tmp_path: Path, rng: np.random.Generator):
    model = filled("resnet20")
    weights.save_onnx(model, tmp_path / "x.onnx", size=16, opset=opset)
    assert onnx.load(tmp_path / "x.onnx").opset_import[0].version == opset
    x = rng.standard_normal((2, 16, 16, 3), np.float32)
    ours = model.eval()(x).numpy()
    atol = EXPORTED * np.abs(ours).max()
    np.testing.assert_allclose(runner(tmp_path / "x.onnx")(x), ours, rtol=0, atol=atol)


def test_wrong_arguments(onnx: Any, tmp_path: Path):
    model = filled("resnet20")
    with pytest.raises(ValueError, match="opset is 9 but must be 15 to"):
        weights.save_onnx(model, tmp_path / "x", size=32, opset=9)
    with pytest.raises(ValueError, match="save_onnx: size is 0 but must be"):
        weights.save_onnx(model, tmp_path / "x", size=0)
    with pytest.raises(DataError, match="the network has no convolution"):
        weights.save_onnx(nn.Linear(2, 2), tmp_path / "x", size=32)
    with pytest.raises(DataError, match="cannot be written"):
        weights.save_onnx(model, tmp_path / "none" / "x", size=32)
