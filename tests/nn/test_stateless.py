"""Layers without weights call the operation of their name."""

from __future__ import annotations

import numpy as np
import pytest

import minires.functional as F
from minires import nn

__all__: list[str] = []


@pytest.mark.parametrize(
    ("layer", "function", "shown"),
    [
        (nn.ReLU(), F.relu, "ReLU()"),
        (nn.GELU(), F.gelu, "GELU()"),
        (nn.SiLU(), F.silu, "SiLU()"),
        (nn.Sigmoid(), F.sigmoid, "Sigmoid()"),
        (nn.Tanh(), F.tanh, "Tanh()"),
        (nn.Softmax(), lambda x: F.softmax(x, axis=-1), "Softmax(axis=-1)"),
        (nn.Softmax(1), lambda x: F.softmax(x, axis=1), "Softmax(axis=1)"),
        (
            nn.MaxPool2d(3, 2, 1),
            lambda x: F.max_pool2d(x, kernel_size=3, stride=2, padding=1),
            "MaxPool2d(kernel_size=3, stride=2, padding=1)",
        ),
        (
            nn.AvgPool2d(2, padding=1, count_include_pad=False),
            lambda x: F.avg_pool2d(x, kernel_size=2, padding=1, count_include_pad=False),
            "AvgPool2d(kernel_size=2, stride=None, padding=1, count_include_pad=False)",
        ),
        (
            nn.AdaptiveAvgPool2d((2, 3)),
            lambda x: F.adaptive_avg_pool2d(x, output_size=(2, 3)),
            "AdaptiveAvgPool2d(output_size=(2, 3))",
        ),
        (nn.GlobalAvgPool2d(), F.global_avg_pool2d, "GlobalAvgPool2d()"),
        (nn.Flatten(), lambda x: F.flatten(x, start_axis=1), "Flatten(channels_first=False)"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_layer_is_its_function(layer, function, shown, rng):
    x = rng.standard_normal((2, 5, 6, 3), np.float32)
    np.testing.assert_array_equal(layer(x).numpy(), function(x).numpy())
    assert repr(layer) == shown
    assert repr(layer.eval()) == shown


def test_flatten_in_pytorchs_order(rng):
    x = rng.standard_normal((2, 4, 5, 3))
    expected = x.transpose(0, 3, 1, 2).reshape(2, -1)
    np.testing.assert_array_equal(nn.Flatten(channels_first=True)(x).numpy(), expected)


def test_cross_entropy_loss(rng):
    logits, target = rng.standard_normal((6, 4)), rng.integers(0, 4, 6)
    loss = nn.CrossEntropyLoss(label_smoothing=0.1, reduction="sum")(logits, target)
    expected = F.cross_entropy(logits, target, label_smoothing=0.1, reduction="sum")
    assert loss.item() == expected.item()
    weighted = nn.CrossEntropyLoss(weight=np.array([1.0, 2.0, 3.0, 4.0]))(logits, target)
    assert weighted.item() != nn.CrossEntropyLoss()(logits, target).item()


def test_dropout_drops_in_training_only():
    x, layer = np.ones((100, 100), np.float32), nn.Dropout(0.25)
    first, second = layer(x).numpy(), layer(x).numpy()
    assert set(np.unique(first)) == {0, np.float32(1 / 0.75)}
    assert (first == 0).mean() == pytest.approx(0.25, abs=0.02)  # 4.6 standard errors
    assert (first != second).any()
    np.testing.assert_array_equal(layer.eval()(x).numpy(), x)
    with pytest.raises(
        ValueError, match=r"Dropout: p is 1\.5 but must be at least 0 and less than 1"
    ):
        nn.Dropout(1.5)
