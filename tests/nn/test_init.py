"""The moments, bounds and reproducibility of initial weights."""

from __future__ import annotations

import math
import re

import numpy as np
import pytest

import minires.random
from minires import functional as F
from minires import nn
from minires.errors import ShapeError
from minires.nn import init
from minires.tensor import Tensor, tensor
from tests.tolerances import MOMENT

__all__: list[str] = []

SHAPE = (3, 3, 64, 96)  # fan_in 576, fan_out 864
FAN_IN, FAN_OUT = 576, 864


def weight(shape: tuple[int, ...] = SHAPE) -> Tensor:
    return tensor(np.full(shape, np.nan, np.float32))


def test_fans_are_pytorchs():
    assert init.fans(SHAPE) == (FAN_IN, FAN_OUT)
    assert init.fans((20, 10)) == (20, 10)
    assert init.fans((3, 3, 4, 32)) == (36, 288)  # 8 groups of 4: as PyTorch, groups do not divide
    with pytest.raises(ShapeError, match=r"2 or more axes .* got \(5,\)"):
        init.fans((5,))


@pytest.mark.parametrize(
    ("fill", "std"),
    [
        (init.normal_, 1.0),
        (lambda t: init.normal_(t, std=0.1), 0.1),
        (lambda t: init.uniform_(t, -1, 1), 1 / math.sqrt(3)),
        (init.xavier_normal_, math.sqrt(2 / (FAN_IN + FAN_OUT))),
        (init.xavier_uniform_, math.sqrt(2 / (FAN_IN + FAN_OUT))),
        (init.kaiming_normal_, math.sqrt(2 / FAN_IN)),
        (init.kaiming_uniform_, math.sqrt(2 / FAN_IN)),
        (lambda t: init.kaiming_normal_(t, mode="fan_out"), math.sqrt(2 / FAN_OUT)),
        (lambda t: init.kaiming_uniform_(t, a=math.sqrt(5)), math.sqrt(1 / 3 / FAN_IN)),
        (lambda t: init.kaiming_normal_(t, nonlinearity="tanh"), 5 / 3 / math.sqrt(FAN_IN)),
    ],
)
def test_mean_is_zero_and_std_as_published(fill, std):
    w = weight()
    assert fill(w) is w
    values = w.numpy().astype(np.float64)
    assert values.mean() == pytest.approx(0, abs=MOMENT * std)
    assert values.std() == pytest.approx(std, rel=MOMENT)
    assert w.version > 0


def test_uniform_stays_in_its_bounds_and_fills_them():
    values = init.uniform_(weight(), -2, 6).numpy()
    assert -2 <= values.min() < -1.99
    assert 5.99 < values.max() <= 6


def test_constants():
    assert (init.zeros_(weight()).numpy() == 0).all()
    assert (init.ones_(weight()).numpy() == 1).all()
    assert (init.constant_(weight(), 0.5).numpy() == 0.5).all()


def test_dirac_passes_channels_through(rng):
    conv = nn.Conv2d(4, 6, 3, padding=1, groups=2, bias=False)
    init.dirac_(conv.weight, groups=2)
    x = rng.standard_normal((2, 5, 5, 4), np.float32)
    y = conv(x).numpy()
    np.testing.assert_array_equal(y[..., [0, 1]], x[..., :2])
    np.testing.assert_array_equal(y[..., [3, 4]], x[..., 2:])
    assert not y[..., [2, 5]].any()
    with pytest.raises(ShapeError, match="dirac_"):
        init.dirac_(weight((3, 4)))


def test_seeds_reproduce_and_differ():
    def draw(seed: int) -> np.ndarray:
        minires.random.manual_seed(seed)
        return np.concatenate([p.numpy().ravel() for p in nn.Linear(9, 8).parameters()])

    np.testing.assert_array_equal(draw(1), draw(1))
    assert (draw(1) != draw(2)).mean() > 0.9
    two = [nn.Linear(9, 8).weight.numpy() for _ in range(2)]
    assert (two[0] != two[1]).all()


def test_skip_leaves_zeros_and_the_random_state():
    before = minires.random.get_state()
    with init.skip():
        layer = nn.Conv2d(3, 4, 3)
    assert minires.random.get_state() == before
    assert not layer.weight.numpy().any()
    assert nn.Conv2d(3, 4, 3).weight.numpy().all()


def test_float64_draws_the_same_numbers():
    minires.random.manual_seed(5)
    single = init.normal_(weight()).numpy()
    minires.random.manual_seed(5)
    double = init.normal_(tensor(np.zeros(SHAPE))).numpy()
    np.testing.assert_array_equal(single, double.astype(np.float32))


def test_unknown_options_are_named():
    with pytest.raises(ValueError, match="mode is 'fan' but must be fan_in or fan_out"):
        init.kaiming_normal_(weight(), mode="fan")
    with pytest.raises(ValueError, match="nonlinearity is 'gelu' but must be one of leaky_relu"):
        init.kaiming_normal_(weight(), nonlinearity="gelu")


def correlated(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Images whose neighbours and colours are alike, as in photographs."""
    images = rng.standard_normal(shape) @ (np.eye(shape[3]) + 0.5)
    images[:, :, 1:] += images[:, :, :-1]
    return images.astype(np.float32)


@pytest.mark.parametrize(
    ("shape", "pairs"),
    [((2, 2, 3, 24), 12), ((3, 3, 3, 64), 27), ((3, 1, 2, 11), 5), ((2, 3, 1, 1), 0)],
)
def test_whitening_makes_patches_uncorrelated(rng, shape: tuple[int, ...], pairs: int):
    images = correlated(rng, (50, 12, 13, shape[2]))
    w = tensor(rng.standard_normal(shape).astype(np.float32))
    before = w.numpy().copy()
    assert init.whitening_(w, images) is w
    y = F.conv2d(images, w).numpy().reshape(-1, shape[3])[:, :pairs]
    moments = y.T @ y / len(y)
    np.testing.assert_allclose(moments, np.eye(pairs), atol=0.05)  # LEAST_VARIANCE is in the way
    np.testing.assert_array_equal(w.numpy()[..., pairs : 2 * pairs], -w.numpy()[..., :pairs])
    np.testing.assert_array_equal(w.numpy()[..., 2 * pairs :], before[..., 2 * pairs :])


def test_whitening_takes_the_largest_first(rng):
    images = correlated(rng, (20, 9, 9, 3))
    w = tensor(np.zeros((3, 3, 3, 54), np.float32))
    norms = np.linalg.norm(init.whitening_(w, images).numpy().reshape(27, 54)[:, :27], axis=0)
    assert (np.diff(norms) > 0).all()  # one over the root of the variance
    few = init.whitening_(tensor(np.zeros((3, 3, 3, 8), np.float32)), images).numpy()
    np.testing.assert_array_equal(few[..., :4], w.numpy()[..., :4])


@pytest.mark.parametrize(
    "shape", [(5, 8, 8), (0, 8, 8, 3), (5, 8, 8, 4), (5, 2, 8, 3), (5, 8, 2, 3)]
)
def test_whitening_refuses_images_that_do_not_fit(shape: tuple[int, ...]):
    message = rf"images are {re.escape(str(shape))} but must be \(n, h, w, 3\), 3x3 or larger"
    with pytest.raises(ShapeError, match=message):
        init.whitening_(weight((3, 3, 3, 16)), np.zeros(shape, np.float32))
