"""Layers with weights: initial values, running statistics, `conv_norm`, errors."""

from __future__ import annotations

import copy

import numpy as np
import pytest

import minires.functional as F
from minires import nn
from minires.errors import ShapeError
from minires.tensor import tensor
from tests.tolerances import FLOAT32, FLOAT64, MOMENT

__all__: list[str] = []


def close(actual, expected, tolerance=FLOAT64):
    np.testing.assert_allclose(actual, expected, rtol=tolerance, atol=tolerance)


def test_conv_and_linear_start_like_pytorchs():
    for layer, fan_in in ((nn.Conv2d(32, 64, 3, groups=2), 144), (nn.Linear(400, 300), 400)):
        bound = 1 / np.sqrt(fan_in)
        for p in layer.parameters():
            assert abs(p.numpy()).max() <= bound
        assert layer.weight.numpy().std() == pytest.approx(bound / np.sqrt(3), rel=MOMENT)


def test_conv_passes_its_geometry_on(rng):
    conv = nn.Conv2d(4, 6, (3, 2), stride=(2, 1), padding=(1, 0), dilation=(1, 2), groups=2)
    x = rng.standard_normal((2, 7, 6, 4), np.float32)
    expected = F.conv2d(
        x, conv.weight, conv.bias, stride=(2, 1), padding=(1, 0), dilation=(1, 2), groups=2
    )
    np.testing.assert_array_equal(conv(x).numpy(), expected.numpy())
    assert repr(conv) == (
        "Conv2d(4, 6, kernel_size=(3, 2), stride=(2, 1), padding=(1, 0), dilation=(1, 2), groups=2)"
    )
    with pytest.raises(ShapeError, match="out_channels=5 must be multiples of groups=2"):
        nn.Conv2d(4, 5, 3, groups=2)


def test_running_statistics_by_hand(rng):
    bn = nn.BatchNorm2d(3).to(np.float64)
    mean, var = np.zeros(3), np.ones(3)
    for _ in range(3):
        x = rng.standard_normal((4, 5, 6, 3)) * [1, 2, 3] + [0, 5, -1]
        y = bn(x).numpy()
        rows = x.reshape(-1, 3)
        close(y.reshape(-1, 3), (rows - rows.mean(0)) / np.sqrt(rows.var(0) + 1e-5), 10 * FLOAT64)
        mean = 0.9 * mean + 0.1 * rows.mean(0)
        var = 0.9 * var + 0.1 * rows.var(0, ddof=1)
    close(bn.running_mean, mean)
    close(bn.running_var, var)
    assert bn.num_batches_tracked == 3

    bn.weight.assign([1.0, 2.0, 3.0])
    bn.bias.assign([0.0, 1.0, 2.0])
    close(bn.eval()(x).numpy(), (x - mean) / np.sqrt(var + 1e-5) * [1, 2, 3] + [0, 1, 2])
    assert bn.num_batches_tracked == 3
    close(bn.running_mean, mean)


def test_momentum_none_averages_all_batches(rng):
    bn = nn.BatchNorm2d(2, momentum=None)
    batches = rng.standard_normal((5, 3, 4, 4, 2)).astype(np.float32)
    for x in batches:
        bn(x)
    close(bn.running_mean, batches.mean((0, 1, 2, 3)), FLOAT32)
    close(bn.running_var, np.mean([x.reshape(-1, 2).var(0, ddof=1) for x in batches], 0), FLOAT32)


def test_statistics_keep_their_memory_and_dtype(rng):
    bn = nn.BatchNorm2d(2)
    kept = bn.running_mean
    bn(rng.standard_normal((3, 4, 4, 2), np.float32))
    assert bn.running_mean is kept
    assert kept.dtype == bn.running_var.dtype == np.float32
    assert kept.any()


def test_batch_norm_without_parameters_or_statistics(rng):
    bn = nn.BatchNorm2d(2, affine=False, track_running_stats=False)
    assert not bn.state_dict()
    x = rng.standard_normal((3, 4, 4, 2))
    close(bn(x).numpy(), bn.eval()(x).numpy())
    assert repr(bn) == "BatchNorm2d(2, affine=False, track_running_stats=False)"


def test_one_value_a_channel_is_refused_in_training():
    bn, x = nn.BatchNorm2d(3), np.ones((1, 1, 1, 3), np.float32)
    with pytest.raises(ShapeError, match=r"more than one value .*\(1, 1, 1, 3\)"):
        bn(x)
    assert bn.num_batches_tracked == 0
    assert bn.eval()(x).shape == x.shape


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("relu", [True, False])
@pytest.mark.parametrize("with_residual", [True, False])
@pytest.mark.parametrize(
    ("bias", "affine", "tracked"), [(False, True, True), (True, True, True), (False, False, False)]
)
def test_conv_norm_is_its_layers_in_turn(rng, training, relu, with_residual, bias, affine, tracked):
    conv = nn.Conv2d(3, 4, 3, stride=2, padding=1, bias=bias)
    bn = nn.BatchNorm2d(4, affine=affine, track_running_stats=tracked)
    pair = nn.Sequential(conv, bn).to(np.float64).train(training)
    twin = copy.deepcopy(pair)
    x, residual = rng.standard_normal((2, 6, 6, 3)), rng.standard_normal((2, 3, 3, 4))
    residual = tensor(residual, requires_grad=True) if with_residual else None

    y = nn.conv_norm(conv, bn, x, residual, relu=relu)
    y.backward(np.cos(y.numpy()))
    grad, expected = None if residual is None else residual.grad, twin(x)
    if residual is not None:
        residual.zero_grad()
        expected = expected + residual
    expected = F.relu(expected) if relu else expected
    expected.backward(np.cos(expected.numpy()))

    close(y.numpy(), expected.numpy(), 10 * FLOAT64)
    for p, q in zip(pair.parameters(), twin.parameters(), strict=True):
        close(p.grad, q.grad, 100 * FLOAT64)
    for a, b in zip(pair.state_dict().values(), twin.state_dict().values(), strict=True):
        close(a, b)
    if residual is not None:
        close(grad, residual.grad)


def test_linear(rng):
    layer = nn.Linear(12, 5, flattened_from=(2, 2, 3)).to(np.float64)
    x = rng.standard_normal((4, 12))
    close(layer(x).numpy(), x @ layer.weight.numpy() + layer.bias.numpy())
    assert repr(nn.Linear(3, 2, bias=False)) == "Linear(3, 2, bias=False)"
    with pytest.raises(
        ShapeError, match=r"in_features is 12 but flattened_from=\(3, 3, 3\) has 27"
    ):
        nn.Linear(12, 5, flattened_from=(3, 3, 3))
