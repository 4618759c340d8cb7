"""Every model: parameter counts, names, shapes, gradients, errors."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import minires.random
from minires import models, nn
from minires.autograd import no_grad
from minires.errors import DTypeError, ShapeError
from minires.tensor import tensor
from tests.tolerances import MOMENT

__all__: list[str] = []

NAMES = Path(__file__).parent / "names"

IMAGENET = {
    "resnet18": 11_689_512,
    "resnet34": 21_797_672,
    "resnet50": 25_557_032,
    "resnet101": 44_549_160,
    "resnet152": 60_192_808,
    "resnext50_32x4d": 25_028_904,
    "wide_resnet50_2": 68_883_240,
}
CIFAR_STEM = {
    "resnet18": 11_173_962,
    "resnet34": 21_282_122,
    "resnet50": 23_520_842,
    "resnet101": 42_512_970,
    "resnet152": 58_156_618,
    "preact_resnet18": 11_172_170,
}
CIFAR = {
    "resnet20": 269_722,
    "resnet32": 464_154,
    "resnet44": 658_586,
    "resnet56": 853_018,
    "resnet110": 1_727_962,
    "plain20": 269_722,
    "plain56": 853_018,
    "article_net": 9_413_066,
    "whitened_resnet": 1_972_792,
    "wide_resnet28_10": 36_479_194,
}
CASES = [
    *((name, 1000, "imagenet", count) for name, count in IMAGENET.items()),
    *((name, 10, "cifar", count) for name, count in CIFAR_STEM.items()),
    *((name, 10, None, count) for name, count in CIFAR.items()),
]


def images(*shape: int) -> np.ndarray:
    return np.random.default_rng(1).standard_normal(shape).astype(np.float32)


@pytest.mark.parametrize(("name", "classes", "stem", "count"), CASES)
def test_parameter_count(name: str, classes: int, stem: str | None, count: int):
    with nn.init.skip():
        model = models.build(name, classes, stem)
    assert sum(p.size for p in model.parameters()) == count


@pytest.mark.parametrize("name", ["resnet18", "resnet50"])
def test_names_and_shapes_are_torchvisions(name: str):
    with nn.init.skip():
        state = models.build(name, 1000, "imagenet").state_dict()
    back = {4: (3, 2, 0, 1), 2: (1, 0), 1: (0,), 0: ()}  # memory layout -> PyTorch's
    shapes = {key: value.transpose(back[value.ndim]).shape for key, value in state.items()}
    lines = [f"{key} {'x'.join(map(str, shape)) or '-'}" for key, shape in shapes.items()]
    assert lines == (NAMES / f"{name}.txt").read_text().splitlines()


def test_relatives_have_the_same_names():
    with nn.init.skip():
        resnet, resnext = models.resnet50(), models.resnext50_32x4d()
        plain, residual = models.plain18(), models.resnet18()
        a, b = models.resnet20(), models.resnet20(shortcut="B")
    assert list(resnext.state_dict()) == list(resnet.state_dict())
    projections = [name for name in residual.state_dict() if "downsample" in name]
    assert [n for n in residual.state_dict() if n not in projections] == list(plain.state_dict())
    extra = [name for name, _ in b.named_parameters() if name not in dict(a.named_parameters())]
    assert extra == [
        f"layer{i}.0.downsample.{name}"
        for i in (2, 3)
        for name in ("0.weight", "1.weight", "1.bias")
    ]


NARROW = (16, 16, 32, 32)  # channels of the stages, for models that run
SMALL = [
    ("resnet18", "imagenet", 32, NARROW),
    ("resnet18", "cifar", 8, NARROW),
    ("resnet50", "imagenet", 32, NARROW),
    ("resnext50_32x4d", "cifar", 8, NARROW),
    ("preact_resnet18", "cifar", 8, NARROW),
    ("preact_resnet50", "imagenet", 32, NARROW),
    ("plain18", "imagenet", 32, NARROW),
    ("article_net", None, 16, (*NARROW, 40)),
    ("resnet20", None, 8, None),
    ("plain20", None, 8, None),
    ("wide_resnet10_2", None, 8, None),
]


@pytest.mark.parametrize(("name", "stem", "size", "widths"), SMALL)
def test_forward_and_backward(name: str, stem: str | None, size: int, widths: Any):
    options = {} if widths is None else {"widths": widths}
    model = models.build(name, 7, stem, **options)
    y = model(images(2, size, size, 3))
    assert y.shape == (2, 7)
    assert y.dtype == np.float32
    assert np.isfinite(y.numpy()).all()
    y.backward(np.ones((2, 7)))
    for path, p in model.named_parameters():
        assert p.grad is not None, path
        assert p.grad.shape == p.shape
        assert p.grad.dtype == np.float32
    for path, buffer in model.named_buffers():
        assert path.endswith("num_batches_tracked") or np.isfinite(buffer).all(), path
    tracked = [b for n, b in model.named_buffers() if n.endswith("num_batches_tracked")]
    assert all(count == 1 for count in tracked), "a BatchNorm was missed or ran twice"


@pytest.mark.parametrize("name", ["resnet20", "preact_resnet18", "wide_resnet10_1", "plain20"])
def test_evaluation_treats_each_image_alone(name: str):
    model = models.build(name, 10, "cifar", widths=NARROW[:3] if "18" not in name else NARROW)
    x = images(3, 8, 8, 3)
    model(x)
    before = model.state_dict()
    with no_grad():
        together = model.eval()(x)
        alone = [model(x[i : i + 1]).numpy()[0] for i in range(3)]
    assert not together.requires_grad
    np.testing.assert_allclose(together.numpy(), alone, rtol=1e-4, atol=1e-5)
    for path, value in model.state_dict().items():
        np.testing.assert_array_equal(value, before[path], err_msg=path)


def test_features_are_the_stages_outputs():
    with nn.init.skip():
        resnet, cifar = models.resnet50(widths=NARROW), models.resnet20()
    x = images(1, 64, 32, 3)
    shapes = [y.shape for y in resnet.eval().features(x)]
    assert shapes == [(1, 16, 8, 64), (1, 8, 4, 64), (1, 4, 2, 128), (1, 2, 1, 128)]
    assert [y.shape[1:3] for y in cifar.eval().features(x)] == [(64, 32), (32, 16), (16, 8)]


def test_odd_sizes_and_grey_images():
    model = models.resnet20(in_channels=1)
    assert model(images(2, 13, 9, 1)).shape == (2, 10)


def test_first_weights_follow_he():
    deviations = {
        models.resnet18(widths=(32, 64, 8, 8)): np.sqrt(2 / (64 * 9)),
        models.resnet20(widths=(32, 64, 8)): np.sqrt(2 / (32 * 9)),
        models.wide_resnet(10, 2): np.sqrt(2 / (64 * 9)),
    }
    for model, std in deviations.items():
        w = model.layer2[0].conv1.weight.numpy()
        assert w.std() == pytest.approx(std, rel=2 * MOMENT)
        assert abs(model.fc.weight.numpy()).max() <= model.fc.in_features**-0.5


def test_zero_init_residual_starts_blocks_as_their_shortcuts():
    for model, last in ((models.resnet20, "bn2"), (models.resnet50, "bn3")):
        with nn.init.skip():
            weights = dict(model(zero_init_residual=True).named_parameters())
        for path, weight in weights.items():
            if ".bn" in path and path.endswith("weight"):
                assert weight.array.any() != (last in path), path


def test_seeds_reproduce():
    def weights(seed: int) -> np.ndarray:
        minires.random.manual_seed(seed)
        return np.concatenate([p.numpy().ravel() for p in models.resnet20().parameters()])

    np.testing.assert_array_equal(weights(3), weights(3))
    assert (weights(3) != weights(4)).any()


def test_zero_padded_shortcut_by_hand():
    block = models.resnet20().layer2[0]
    x = images(2, 6, 5, 16)
    y = block.downsample(tensor(x)).numpy()
    assert y.shape == (2, 3, 3, 32)
    np.testing.assert_array_equal(y[..., 8:24], x[:, ::2, ::2])
    assert not y[..., :8].any()
    assert not y[..., 24:].any()


def test_identity_shortcut_reaches_the_output():
    block = models.resnet20(zero_init_residual=True).layer1[1]
    x = abs(images(2, 6, 6, 16))
    np.testing.assert_allclose(block(tensor(x)).numpy(), x, rtol=1e-6)
    plain = models.plain20().layer1[1]
    nn.init.zeros_(plain.bn2.weight)
    assert not plain(tensor(x)).numpy().any()


def test_preactivation_shortcuts():
    model = models.preact_resnet18(widths=NARROW)
    assert isinstance(model.layer1[0].downsample, nn.Identity), "the first block's comes after ReLU"
    assert model.layer1[1].downsample is None
    nn.init.zeros_(model.layer1[1].conv2.weight)
    nn.init.zeros_(model.layer1[0].conv2.weight)
    x = images(2, 4, 4, 16)
    np.testing.assert_array_equal(model.layer1[1](tensor(x)).numpy(), x)
    assert (model.layer1[0](tensor(x)).numpy() >= 0).all()


@pytest.mark.parametrize(
    "build",
    [
        lambda: models.article_net(widths=(8, 8, 16, 16, 16)),
        lambda: models.wide_resnet(10, 1, dropout=0.3),
    ],
)
def test_dropout_acts_in_training_only(build):
    model, x = build(), images(4, 16, 16, 3)
    assert (model(x).numpy() != model(x).numpy()).any()
    model.eval()
    np.testing.assert_array_equal(model(x).numpy(), model(x).numpy())


def test_article_net_is_as_described():
    with nn.init.skip():
        model = models.article_net()
    stages = model.stages()
    assert [stage.conv2.out_channels for stage in stages] == [64, 128, 256, 512, 512]
    assert [stage.dropout.p for stage in stages] == [0.3, 0.4, 0.4, 0.4, 0.5]
    sizes = [y.shape[1] for y in model.eval().features(images(1, 32, 32, 3))]
    assert sizes == [16, 8, 4, 2, 2]


@pytest.mark.parametrize(
    ("x", "error", "message"),
    [
        (
            images(8, 8, 3),
            ShapeError,
            r"images have 3 axes but must be \(n, h, w, 3\): x=\(8, 8, 3\)",
        ),
        (
            images(2, 8, 8, 4),
            ShapeError,
            r"images have 4 channels but must have 3: x=\(2, 8, 8, 4\)",
        ),
        (images(2, 3, 8, 8), ShapeError, r"8 channels but must have 3 \(channels come last here\)"),
        (images(0, 8, 8, 3), ShapeError, r"the batch is empty: x=\(0, 8, 8, 3\)"),
        (images(2, 0, 8, 3), ShapeError, r"the batch is empty: x=\(2, 0, 8, 3\)"),
        (np.zeros((2, 8, 8, 3), np.uint8), DTypeError, "images are uint8 but the model is float32"),
        (tensor(np.zeros((2, 8, 8, 3))), DTypeError, "images are float64 but the model is float32"),
    ],
)
def test_wrong_images_are_refused(x, error, message):
    with nn.init.skip():
        model = models.resnet20()
    with pytest.raises(error, match=f"ResNet: .*{message}") as caught:
        model(x)
    assert "\n" not in str(caught.value)
    with pytest.raises(error):
        model.features(x)


def test_bare_arrays_take_the_models_dtype():
    with nn.init.skip():
        model = models.resnet20().eval()
    assert model(np.zeros((1, 8, 8, 3))).dtype == np.float32
    assert model.to(np.float64)(np.zeros((1, 8, 8, 3), np.float32)).dtype == np.float64


def test_article_net_refuses_images_that_pooling_would_use_up():
    with nn.init.skip():
        model = models.article_net()
    with pytest.raises(ShapeError, match="images must be 16x16 or larger"):
        model(images(1, 8, 8, 3))


def test_unknown_options_are_named():
    for wrong, message in (
        (lambda: models.resnet18(stem="cfar"), "stem is 'cfar' but must be one of imagenet, cifar"),
        (lambda: models.resnet20(shortcut="C"), "shortcut is 'C' but must be one of A, B"),
        (lambda: models.wide_resnet(27, 10), "depth is 27 but must be 6 n"),
        (lambda: models.wide_resnet(28, 0), "width is 0 but must be 1 or more"),
        (lambda: models.resnet20(0), "num_classes=0"),
    ):
        with pytest.raises(ValueError, match=message):
            wrong()
    with pytest.raises(TypeError, match="shortcuts"):
        models.resnet20(shortcuts="A")
