"""One step learns; a step with NaN in it changes nothing and names the operation."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from minires import nn, optim, random
from minires.errors import NonFiniteError
from minires.kernels import bf16
from minires.train.step import TrainStep, count_correct
from tests import tolerances

from .conftest import Toy

__all__: list[str] = []


class Fails(nn.Module):
    """A toy whose logits go through an operation that gives NaN, forward or backward."""

    def __init__(self, op: Any) -> None:
        self.toy, self.op = Toy(8), op

    def forward(self, x: Any) -> Any:
        return self.op(self.toy(x))


def step_of(model: nn.Module, **options: Any) -> TrainStep:
    optimizer = optim.SGD(model.parameters(), 0.1, momentum=0.9)
    return TrainStep(model, optimizer, optim.CosineLR(optimizer, 10), **options)


@pytest.fixture
def batch(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    return rng.normal(size=(8, 8, 8, 3)).astype(np.float32), rng.integers(0, 8, 8)


def test_it_learns_and_reports(batch):
    step = step_of(Toy(8))
    results = [step(*batch) for _ in range(10)]
    assert results[-1].loss < results[0].loss
    assert [round(r.rate, 6) for r in results[::9]] == [0.1, 0.002447]
    assert 0 <= results[-1].correct <= 8
    assert all(r.norm > 0 for r in results)


@pytest.mark.skipif(not bf16.AVAILABLE, reason="this CPU has no AVX512_BF16")
def test_bf16_learns_alike_but_not_the_same():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(16, 16, 16, 3)).astype(np.float32), rng.integers(0, 4, 16)
    losses = {}
    for name in ("float32", "bf16"):
        random.manual_seed(0)
        net = nn.Sequential(nn.Conv2d(3, 8, 3, 2, padding=1), nn.GlobalAvgPool2d(), nn.Linear(8, 4))
        step = step_of(net, precision=name)
        losses[name] = [step(x, y).loss for _ in range(10)]
    assert losses["bf16"][0] != losses["float32"][0]
    assert losses["bf16"] == pytest.approx(losses["float32"], rel=tolerances.BF16_LOSS)
    assert losses["bf16"][-1] < losses["bf16"][0]


@pytest.mark.parametrize(
    ("op", "name"),
    [
        (lambda y: (y - 1e9).log(), "log"),  # NaN forward
        (lambda y: (y * y * 0.0).sqrt(), "sqrt"),  # infinite only backward
        (lambda y: y * 1e30 * 1e30, "mul"),  # overflow
    ],
)
def test_non_finite(batch, op, name: str):
    model = Fails(op)
    step = step_of(model)
    before, drawn = model.state_dict(), random.get_state()
    with pytest.raises(NonFiniteError, match=f"{name}.* gave NaN or Inf") as caught:
        step(*batch)
    assert caught.value.op is not None
    assert caught.value.op.startswith(name)
    np.testing.assert_equal(model.state_dict(), before)
    assert random.get_state() == drawn
    assert step.schedule.count == 0


def test_a_nan_image_is_noticed(batch):
    x, target = batch
    x[3, 1, 2, 0] = np.nan
    model = Toy(8)
    before = model.state_dict()
    with pytest.raises(NonFiniteError):
        step_of(model)(x, target)
    np.testing.assert_equal(model.state_dict(), before)


def test_gradients_are_clipped(batch):
    model = Toy(8)
    before = model.state_dict()
    norm = step_of(model, clip_norm=1e-3)(*batch).norm
    assert norm > 1e-3  # as it was before
    moved = sum(float(((p - before[n]) ** 2).sum()) for n, p in weights_of(model).items())
    assert moved**0.5 <= 1e-3 * 0.1 * 1.001


def weights_of(model: nn.Module) -> dict[str, np.ndarray]:
    return {name: p.array for name, p in model.named_parameters()}


def test_state_goes_on_bit_for_bit(batch):
    random.manual_seed(5)
    first = step_of(Toy(8))
    first(*batch)
    state = first.state_dict()
    expected = [first(*batch) for _ in range(3)], first.model.state_dict()
    second = step_of(Toy(8))
    second.load_state_dict(state)
    assert [second(*batch) for _ in range(3)] == expected[0]
    np.testing.assert_equal(second.model.state_dict(), expected[1])


def test_count_correct():
    import minires as mr

    logits = mr.tensor(np.eye(4, dtype=np.float32)[[0, 1, 1]])
    assert count_correct(logits, np.array([0, 1, 2])) == 2
