"""Bad input to the engine: one line that names the value and what was expected.

What the command says about bad files and options is in test_command_errors.py.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import minires as mr
import minires.functional as F
from minires import data, models, nn, optim
from minires.backend import cuda_available
from minires.errors import DataError, DTypeError, GraphError, NonFiniteError, ShapeError
from minires.op import OPS

__all__: list[str] = []


def f(*shape: int) -> np.ndarray:
    return np.ones(shape, np.float32)


def d(*shape: int) -> np.ndarray:
    return np.ones(shape)


def i(*shape: int) -> np.ndarray:
    return np.ones(shape, np.int64)


def raises(call: Callable[[], Any], error: type[BaseException], message: str) -> None:
    """The call fails with exactly this type and one line that begins with `message`."""
    with pytest.raises(error, match=f"^{re.escape(message)}") as caught:
        call()
    assert type(caught.value) is error
    assert "\n" not in str(caught.value)


X, W = f(2, 8, 8, 3), f(3, 3, 3, 4)
TRAINING = {"running": None, "training": True}
V = f(4)

RANKS_AND_SHAPES: list[tuple[Callable[[], Any], str]] = [
    (lambda: F.conv2d(X, f(3, 3, 4, 16)),
     "conv2d: x has 3 channels but w expects 4: x=(2, 8, 8, 3), w=(3, 3, 4, 16)"),
    (lambda: F.conv2d(X[0], W), "conv2d: x must be (n, h, w, c) and w (r, s, c/groups, k): x=(8,"),
    (lambda: F.conv2d(X, W[0]), "conv2d: x must be (n, h, w, c) and w"),
    (lambda: F.conv2d(X, W, f(5)), "conv2d: b has shape (5,) but must be (4,)"),
    (lambda: F.conv2d(X, W, groups=2), "conv2d: groups=2 must divide the channels of x and w"),
    (lambda: F.conv2d(X, W, stride=0), "conv2d: stride is 0 but must be an int >= 1"),
    (lambda: F.conv2d(X, W, padding="same"), "conv2d: padding is 'same' but must be an int >= 0"),
    (lambda: F.conv2d(X, W, dilation=(1, 2, 3)), "conv2d: dilation is (1, 2, 3) but must be"),
    (lambda: F.conv2d(f(1, 2, 2, 3), W), "conv2d: the window does not fit into the padded image"),
    (lambda: F.linear(f(2, 3), f(4, 5)), "linear: x (…, in) and w (in, out) do not fit: x=(2, 3)"),
    (lambda: F.linear(f(2, 3), f(3, 5), f(4)), "linear: b has shape (4,) but must be (5,)"),
    (lambda: F.batch_norm(X, V, V, training=True), "batch_norm: gamma has shape (4,) but must be"),
    (lambda: F.batch_norm(f(3), training=True), "batch_norm: x must be (n, …, c)"),
    (lambda: F.batch_norm(f(1, 3), training=True), "batch_norm: training needs more than one"),
    (lambda: F.batch_norm(X), "batch_norm: running=(mean, var) is needed when training=False"),
    (lambda: F.batch_norm(X, running=(f(3), f(4))), "batch_norm: running variance has shape (4,)"),
    (lambda: F.conv_norm(X, W, V, V, X, **TRAINING), "conv_norm: residual is (2, 8, 8, 3) but"),
    (lambda: F.conv_norm(X, W, f(3), V, **TRAINING), "conv_norm: gamma has shape (3,) but must"),
    (lambda: F.max_pool2d(X[0], kernel_size=2), "max_pool2d: x must be (n, h, w, c) and not empty"),
    (lambda: F.max_pool2d(X, kernel_size=9), "max_pool2d: window (9, 9) does not fit into x of"),
    (lambda: F.max_pool2d(X, kernel_size=0), "max_pool2d: kernel_size is 0 but must be"),
    (lambda: F.max_pool2d(X, kernel_size=2, padding=2), "max_pool2d: padding (2, 2) is more than"),
    (lambda: F.avg_pool2d(X[0], kernel_size=2), "avg_pool2d: x must be (n, h, w, c)"),
    (lambda: F.adaptive_avg_pool2d(X, output_size=0), "adaptive_avg_pool2d: output_size is 0 but"),
    (lambda: F.global_avg_pool2d(f(2, 3)), "global_avg_pool2d: x must be (n, h, w, c)"),
    (lambda: F.global_max_pool2d(f(2, 3)), "global_max_pool2d: x must be (n, h, w, c)"),
    (lambda: F.cross_entropy(f(3), i(3)), "cross_entropy: logits must be (n, k) and not empty, go"),
    (lambda: F.cross_entropy(f(2, 3), i(3)), "cross_entropy: labels must be (2,) for logits (2, 3"),
    (lambda: F.cross_entropy(f(2, 3), f(2, 4)), "cross_entropy: target probabilities are (2, 4)"),
    (lambda: F.cross_entropy(f(2, 3), i(2), f(2)), "cross_entropy: weight has shape (2,) but must"),
    (lambda: F.mse_loss(f(2), f(3)), "mse_loss: x is (2,) but target (3,)"),
    (lambda: F.softmax(f(2, 3), axis=2), "softmax: axis 2 does not fit x of shape (2, 3)"),
    (lambda: F.log_softmax(f(2, 3), axis=-3), "log_softmax: axis -3 does not fit x of shape"),
    (lambda: F.matmul(f(2, 3), f(2, 3)), "matmul: inner sizes differ: (2, 3) @ (2, 3)"),
    (lambda: F.matmul(f(2, 2, 3), f(3, 3, 2)), "matmul: leading axes do not broadcast: (2, 2, 3)"),
    (lambda: F.matmul(f(2, 3), 3), "matmul: needs arrays with at least one axis"),
    (lambda: mr.tensor(f(2, 3)) + f(2), "add: shapes (2, 3) and (2,) do not broadcast"),
    (lambda: F.where(f(2, 3) > 0, f(2, 3), f(2)), "where: shapes (2, 3) and (2,) do not broadcast"),
    (lambda: F.sum(f(2, 3), axis=2), "sum: axis 2 is not an axis of x with shape (2, 3)"),
    (lambda: F.mean(f(2, 3), axis="a"), "mean: axis 'a' is not an axis of x with shape (2, 3)"),
    (lambda: F.max(f(2, 3), axis=(1, -1)), "max: axis (1, -1) names an axis of x with shape (2, 3"),
    (lambda: F.reshape(f(2, 3), shape=(4, 2)), "reshape: x of shape (2, 3) does not fit shape (4,"),
    (lambda: F.transpose(f(2, 3), axes=(0, 2)), "transpose: axes (0, 2) is no permutation of"),
    (lambda: F.flatten(f(2, 3), start_axis=2), "flatten: axis 2 does not fit x of shape (2, 3)"),
    (lambda: F.squeeze(f(2, 3), axis=0), "squeeze: axis 0 of shape (2, 3) has size 2, not 1"),
    (lambda: F.squeeze(f(2, 3), axis=2), "squeeze: axis 2 does not fit x of shape (2, 3)"),
    (lambda: F.expand_dims(f(2, 3), axis=4), "expand_dims: axis 4 does not fit x of shape (2, 3)"),
    (lambda: F.broadcast_to(f(2, 3), shape=(2, 4)), "broadcast_to: x of shape (2, 3) does not fit"),
    (lambda: F.broadcast_to(f(2, 3), shape=(3,)), "broadcast_to: x of shape (2, 3) does not fit"),
    (lambda: F.pad(f(2, 3), widths=((0, 0),)), "pad: widths is ((0, 0),) but must be a pair of"),
    (lambda: F.pad(f(2), widths=((0, -1),)), "pad: widths is ((0, -1),) but must be a pair of"),
    (lambda: F.concatenate([f(2, 3), f(2, 4)]), "concatenate: shapes (2, 3), (2, 4) do not fit"),
    (lambda: F.concatenate([]), "concatenate: needs at least one array"),
    (lambda: F.stack([f(2), f(3)]), "stack: shapes differ: (2,), (3,)"),
    (lambda: F.stack([f(2)], axis=2), "stack: axis 2 does not fit x of shape (2,)"),
    (lambda: mr.tensor([[1, 2], [3]]), "tensor: setting an array element with a sequence"),
    (lambda: mr.tensor(f(3)).item(), "item: needs a tensor of one element, got shape (3,)"),
    (lambda: mr.tensor(f(3)).assign(f(4)), "assign: value has shape (4,) but the tensor (3,)"),
    (lambda: (mr.tensor(f(3), requires_grad=True) * 2).backward(), "backward: give an upstream"),
    (lambda: nn.Conv2d(3, 8, 3)(f(2, 8, 8, 4)), "conv2d: x has 4 channels but w expects 3"),
    (lambda: nn.Conv2d(3, 8, 0), "Conv2d: kernel_size is 0 but must be an int >= 1 or a pair"),
    (lambda: nn.Conv2d(0, 8, 3), "Conv2d: in_channels is 0 but must be an int of at least 1"),
    (lambda: nn.Conv2d(3, 8, 3, groups=2), "Conv2d: in_channels=3 and out_channels=8 must be"),
    (lambda: nn.BatchNorm2d(0), "BatchNorm2d: num_features is 0 but must be an int of at least 1"),
    (lambda: nn.Linear(3, 0), "Linear: out_features is 0 but must be an int of at least 1"),
    (lambda: models.resnet20()(f(2, 32, 32, 4)), "ResNet: images have 4 channels but must have 3"),
    (lambda: models.resnet20()(f(2, 3, 32, 32)), "ResNet: images have 32 channels but must have 3 "
     "(channels come last here)"),
    (lambda: models.resnet20()(f(32, 32, 3)), "ResNet: images have 3 axes but must be (n, h, w, 3"),
    (lambda: models.article_net()(f(1, 8, 8, 3)), "ArticleNet: images must be 16x16 or larger"),
]  # fmt: skip

DTYPES: list[tuple[Callable[[], Any], str]] = [
    (lambda: F.conv2d(X, d(3, 3, 3, 4)), "conv2d: x is float32 but w is float64"),
    (lambda: F.conv2d(X, W, d(4)), "conv2d: x is float32 but b is float64"),
    (lambda: F.conv2d(X, None), "conv2d: w is None but must be a tensor or an array"),
    (lambda: F.conv2d("x", W), "conv2d: expected a tensor, an array or a number, got str"),
    (lambda: F.conv2d(X.astype(np.float16), W), "conv2d: x must be float32 or float64, got float1"),
    (lambda: F.linear(f(2, 3), d(3, 5)), "linear: x is float32 but w is float64"),
    (lambda: F.batch_norm(X, d(3), f(3), training=True), "batch_norm: x is float32 but gamma is"),
    (lambda: F.conv_norm(X, W, V, V, d(2, 6, 6, 4), **TRAINING), "conv_norm: x is float32 but res"),
    (lambda: F.mse_loss(f(2), i(2)), "mse_loss: x is float32 but target is int64"),
    (lambda: F.cross_entropy(f(2, 3), i(2) > 0), "cross_entropy: target must be integer labels or"),
    (lambda: F.cross_entropy(f(2, 3), 1), "cross_entropy: target must be an array, got int"),
    (lambda: F.concatenate([f(2), d(2)]), "concatenate: needs arrays of one dtype, got float32, f"),
    (lambda: mr.tensor(f(3)) + None, "add: y is None but must be a tensor or an array"),
    (lambda: mr.tensor(f(3)) * "2", "mul: expected a tensor, an array or a number, got str"),
    (lambda: mr.tensor("a"), "tensor: expected numbers, got str 'a'"),
    (lambda: mr.tensor(i(3), requires_grad=True), "tensor: only float32 and float64 have gradient"),
    (lambda: mr.tensor(f(3), dtype=np.float16), "tensor: dtype float16 is not float32, float64"),
    (lambda: mr.tensor(f(3)).to("tpu"), "to: 'tpu' is neither a dtype nor a device"),
    (lambda: nn.Conv2d(3, 8, 3)(d(2, 8, 8, 3)), "conv2d: x is float64 but w is float32"),
    (lambda: nn.Linear(3, 4).to(np.int32), "Linear.to: <class 'numpy.int32'> is neither float32"),
    (lambda: models.resnet20()(i(2, 32, 32, 3)), "ResNet: images are int64 but the model is float"),
    (lambda: data.Dataset(X, i(2), ["a", "b"], "mine"), "mine: images must be uint8 (0 to 255), g"),
]  # fmt: skip

VALUES: list[tuple[Callable[[], Any], str]] = [
    (lambda: F.cross_entropy(f(2, 3), np.array([0, 3])), "cross_entropy: label 3 at 1 is not in 0"),
    (lambda: F.cross_entropy(f(2, 3), np.array([-1, 0])), "cross_entropy: label -1 at 0 is not in"),
    (lambda: F.cross_entropy(f(2, 3), i(2), reduction="avg"), "cross_entropy: reduction is 'avg' "),
    (lambda: F.cross_entropy(f(2, 3), i(2), label_smoothing=1.5), "cross_entropy: label_smoothing"),
    (lambda: F.dropout(f(3), p=1.0), "dropout: p is 1.0 but must be in [0, 1)"),
    (lambda: F.gelu(f(3), approximate="x"), "gelu: approximate is 'x' but must be 'none' or 'tanh"),
    (lambda: mr.tensor(f(3), device="tpu"), "device is 'tpu' but must be one of auto, cpu, cuda"),
    (lambda: nn.Linear(3, 4).load_state_dict({}), "Linear.load_state_dict: missing: weight, bias"),
    (lambda: models.resnet20(shortcut="C"), "shortcut is 'C' but must be one of A, B"),
    (lambda: models.resnet18(stem="x"), "stem is 'x' but must be one of imagenet, cifar"),
    (lambda: models.wide_resnet(17, 2), "wide_resnet: depth is 17 but must be 6 n + 4"),
    (lambda: models.build("resnet19"), "model is 'resnet19' but must be one of resnet18,"),
    (lambda: optim.SGD([], lr=0.1), "SGD: params is empty but must hold at least one parameter"),
    (lambda: optim.SGD(nn.Linear(1, 1).parameters(), lr=-1), "SGD: lr is -1 but must be a number "),
    (lambda: data.shapes("val"), "shapes: split is 'val' but must be 'train' or 'test'"),
    (lambda: data.load_dataset("mnist", ".", "test"), "load_dataset: name is 'mnist' but must be "),
    (lambda: data.Loader(data.shapes("test", n=2), 0), "Loader: batch_size is 0 but must be at le"),
]  # fmt: skip


def short(value: Any) -> str:
    """A parameter's name in a test's."""
    return value[:40] if isinstance(value, str) else value.__name__


@pytest.mark.parametrize(("call", "message"), RANKS_AND_SHAPES, ids=short)
def test_ranks_and_shapes(call: Callable[[], Any], message: str) -> None:
    raises(call, ShapeError, message)


@pytest.mark.parametrize(("call", "message"), DTYPES, ids=short)
def test_dtypes(call: Callable[[], Any], message: str) -> None:
    raises(call, DTypeError, message)


@pytest.mark.parametrize(("call", "message"), VALUES, ids=short)
def test_values(call: Callable[[], Any], message: str) -> None:
    raises(call, ValueError, message)


MOVES_INTEGERS = {  # those that only move or combine elements take integers too
    *("add", "sub", "mul", "div", "neg", "power", "matmul", "astype", "maximum", "minimum"),
    *("where", "reshape", "flatten", "transpose", "squeeze", "expand_dims", "broadcast_to", "pad"),
    *("getitem", "concatenate", "stack"),
}


@pytest.mark.parametrize("name", sorted(set(OPS) - MOVES_INTEGERS))
@pytest.mark.parametrize("dtype", [np.int64, np.uint8, np.complex64])
def test_every_computing_op_refuses_other_dtypes(name: str, dtype: Any) -> None:
    op = OPS[name]
    first, *rest = op.cases[0].arrays(np.random.default_rng(0), np.float32)
    bad = np.ones(np.shape(first), dtype)
    message = f"{name}: x must be float32 or float64, got {np.dtype(dtype)}"
    raises(lambda: op(bad, *rest, **op.cases[0].params), DTypeError, message)


EMPTY: list[tuple[Callable[[], Any], type[BaseException], str]] = [
    (lambda: F.conv2d(X[:0], W), ShapeError, "conv2d: an empty batch or image: x=(0, 8, 8, 3)"),
    (lambda: F.batch_norm(X[:0], training=True), ShapeError, "batch_norm: x must be (n, …, c) wit"),
    (lambda: F.conv_norm(X[:0], W, V, V, **TRAINING), ShapeError, "conv_norm: an empty batch or"),
    (lambda: F.max_pool2d(X[:0], kernel_size=2), ShapeError, "max_pool2d: x must be (n, h, w, c) "),
    (lambda: F.global_avg_pool2d(X[:0]), ShapeError, "global_avg_pool2d: x must be (n, h, w, c) a"),
    (lambda: F.cross_entropy(f(0, 3), i(0)), ShapeError, "cross_entropy: logits must be (n, k) an"),
    (lambda: F.mean(f(0, 3)), ShapeError, "mean: no elements to reduce: x has shape (0, 3)"),
    (lambda: models.resnet20()(f(0, 32, 32, 3)), ShapeError, "ResNet: the batch is empty: x=(0, 3"),
    (lambda: data.Loader(data.shapes("test", n=2)[:0], 4), DataError, "Loader: the data set"),
]  # fmt: skip


@pytest.mark.parametrize(("call", "error", "message"), EMPTY, ids=short)
def test_an_empty_batch(call: Callable[[], Any], error: Any, message: str) -> None:
    raises(call, error, message)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_nan_images(value: float) -> None:
    images = f(3, 32, 32, 3)
    images[1, 2, 3, 0] = value
    message = "ResNet: image 1 of 3 contains NaN or infinity"
    raises(lambda: models.resnet20()(images), DataError, message)
    if np.isnan(value):
        message = "conv2d: 1 of 9216 input-0 values are NaN or Inf, first at (1, 2, 3, 0)"
        with mr.detect_anomaly():
            raises(lambda: F.conv2d(mr.tensor(images), W), NonFiniteError, message)


@pytest.mark.skipif(cuda_available(), reason="needs a machine without a GPU")
def test_cuda_without_a_gpu() -> None:
    for call in (lambda: mr.tensor(f(3), device="cuda"), lambda: nn.Linear(1, 1).to("cuda")):
        raises(call, RuntimeError, "device is 'cuda' but ")


def test_graphs() -> None:
    x = mr.tensor(f(3), requires_grad=True)
    raises(lambda: mr.tensor(f(3)).backward(f(3)), GraphError, "backward: this tensor depends on")
    y = (x * 2).sum()
    raises(lambda: y.backward(create_graph=True), GraphError, "backward: create_graph=True, but")
    y.backward()
    raises(y.backward, GraphError, "backward: ")
