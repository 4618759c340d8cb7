"""Training in fp16: a step that overflows changes nothing and halves the scale, decided on the
device; what is saved goes on to the bit."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

import minires as mr
import minires.functional as F
from minires import nn, optim, random
from minires.backend import to_device
from minires.kernels import launch
from minires.kernels.judge import LEAST, judge_step
from minires.train import ConfigError, TrainConfig, Trainer
from minires.train.metrics import Tally
from minires.train.step import TrainStep
from minires.weights import load_file
from tests import tolerances
from tests.commands import TINY
from tests.gpu.emulated import Emulated

__all__: list[str] = []

pytestmark = pytest.mark.gpu

HUGE = 2.0**40  # a scale at which every gradient overflows
OPTIMIZERS = {
    "sgd": lambda params: optim.SGD(params, 0.05, momentum=0.9, dampening=0.5),
    "muon": lambda params: optim.Muon(
        [{"params": [p], "orthogonal": p.ndim > 2} for p in params], 0.05
    ),
    "adamw": lambda params: optim.AdamW(params, 1e-2),
}
both_optimizers = pytest.mark.parametrize("kind", OPTIMIZERS)


def step_of(precision: str = "fp16", kind: str = "sgd", **options: Any) -> TrainStep:
    """A step of a small network on the device, always the same one."""
    random.manual_seed(0)
    block = nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU()
    net = nn.Sequential(*block, nn.Conv2d(8, 8, 3, 2, padding=1), nn.GlobalAvgPool2d())
    net.append(nn.Linear(8, 4))
    optimizer = OPTIMIZERS[kind](net.to("cuda").parameters())
    schedule = optim.CosineLR(optimizer, 50)
    return TrainStep(net, optimizer, schedule, precision=precision, **options)


@pytest.fixture
def batch(cupy: Any) -> tuple[Any, Any]:
    rng = np.random.default_rng(0)
    x = rng.standard_normal((16, 12, 12, 3)).astype(np.float32)
    return to_device(x, "cuda"), to_device(rng.integers(0, 4, 16), "cuda")


def losses(step: TrainStep, batch: Any, count: int) -> list[float]:
    """Of so many steps, each read."""
    found = []
    for _ in range(count):
        step.begin(Tally())
        step(*batch)
        tally = Tally(total=16)
        assert step.read(tally).lost == 0
        found.append(tally.loss)
    return found


def weights(step: TrainStep) -> list[np.ndarray]:
    return [p.numpy() for p in step.model.parameters()]


@both_optimizers
def test_it_learns_alike(kind: str, batch: Any):
    with_scale, plain = (losses(step_of(name, kind), batch, 10) for name in ("fp16", "float32"))
    assert with_scale != plain
    np.testing.assert_allclose(with_scale, plain, rtol=tolerances.BF16_LOSS)
    assert with_scale[-1] < with_scale[0]


@both_optimizers
def test_an_overflow_skips_the_step_and_halves_the_scale(kind: str, batch: Any, standin: Any):
    """Without the host: afterwards everything is as if the step had not been tried."""
    step, other = step_of(kind=kind), step_of(kind=kind)
    before = weights(step)
    step.scale.state[2:3].fill(HUGE)
    step(*batch)  # compiles
    with standin.forbidden("synchronise", "copy_to_host"):
        step(*batch)
        step(*batch)
    assert step.scale.read() == HUGE / 8
    for a, b in zip(weights(step), before, strict=True):
        np.testing.assert_array_equal(a, b)
    assert all(not entry for entry in step.optimizer.state_dict()["state"])
    # the next steps are the first ones of a network that never overflowed, but for the schedule
    step.scale.state[2:3].fill(2.0**10)
    other.scale.state[2:3].fill(2.0**10)
    for s in (step, other):
        s.schedule.load_state_dict({**s.schedule.state_dict(), "count": 3})
    step.model.load_state_dict({**other.model.state_dict()})  # the running statistics moved
    for s in (step, other):
        losses(s, batch, 3)
    for a, b in zip(weights(step), weights(other), strict=True):
        np.testing.assert_array_equal(a, b)


def test_the_scale_finds_its_place(batch: Any):
    step = step_of()
    step.scale.state[2:3].fill(HUGE)
    found = losses(step, batch, 40)
    assert 2.0**8 < step.scale.read() < HUGE / 2
    assert found[-1] < found[0]


def test_gradients_that_are_never_finite_are_an_error(batch: Any):
    """The second step has the least scale, and is the first bad one of four."""
    step, tally = step_of(), Tally(total=16)
    step.scale.state[2:3].fill(2 * LEAST)
    step.model[-1].weight.array[...] *= 1e30  # the loss is finite, and beyond fp16 its gradients
    before = weights(step)
    for _ in range(4):
        step(*batch)
    assert step.read(tally).lost == 3
    assert np.isfinite(tally.loss)
    for a, b in zip(weights(step), before, strict=True):
        np.testing.assert_array_equal(a, b)


@both_optimizers
def test_it_goes_on_to_the_bit(kind: str, batch: Any):
    """Also from between steps that overflow and such that do not."""
    first = step_of(kind=kind)
    first.scale.state[2:3].fill(HUGE)
    losses(first, batch, 25)
    state = {**first.state_dict(), "random": random.get_state()}
    expected = losses(first, batch, 5), first.scale.read()
    second = step_of(kind=kind)
    second.load_state_dict(state)
    assert (losses(second, batch, 5), second.scale.read()) == expected
    for a, b in zip(weights(first), weights(second), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("total", [np.inf, np.nan, 0.5])
@pytest.mark.parametrize("loss", [1.5, np.nan])
@pytest.mark.parametrize("scale", [None, 8.0, LEAST])
def test_what_is_not_finite(total: float, loss: float, scale: Any, monkeypatch):
    """The kernel in the emulator and its reference decide alike."""
    monkeypatch.setattr(launch, "platform", Emulated())
    outcomes = []
    for judge in (judge_step.reference, judge_step.twins["cuda"][0]):
        given = [np.zeros(8), np.array([0.25, total]), np.array(loss), np.ones(5, np.uint8)]
        given.append(None if scale is None else np.array([1, 1, scale, 6]))
        for _ in range(2):
            judge(*given, most=1.0)
        outcomes.append(given)
    for a, b in zip(*outcomes, strict=True):
        np.testing.assert_equal(a, b)
    state, of_scale = outcomes[0][0], outcomes[0][4]
    assert (state[0] >= 0) == (np.isfinite(total) and np.isfinite(loss))
    overflow = not np.isfinite(total)
    first_bad = 1 if np.isnan(loss) or (overflow and scale in (None, LEAST)) else 0
    assert state[6] == first_bad
    if scale is not None:
        assert of_scale[2] == (max(scale / 4, LEAST) if overflow else scale)
        assert of_scale[3] == (0 if overflow else 8)


def test_a_loop_of_ones_own(batch: Any):
    step = step_of()
    scale, net, optimizer = optim.LossScale("cuda"), step.model, step.optimizer
    found = []
    for _ in range(5):
        optimizer.zero_grad()
        with mr.precision("fp16", "cuda"):
            loss = F.cross_entropy(net(batch[0]), batch[1])
            loss.backward(scale.upstream())
        optimizer.step(scale.judge)
        found.append(loss.item())
    assert found[-1] < found[0]
    assert scale.read() == 2.0**16
    other = optim.LossScale("cuda", first=2.0)
    other.load_state_dict(scale.state_dict())
    assert other.read() == 2.0**16


def test_a_run_is_resumed_to_the_bit(cupy: Any, run: Any, tmp_path: Any):
    """Options, checkpoint and command: the weights of a run in one go and in two."""
    arguments = "train", *TINY, "--device", "cuda", "--precision", "fp16", "--epochs", "2"
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    assert run(*arguments, "--out", whole, "--quiet")[0] == 0
    config = json.loads((whole / "config.json").read_text())
    assert config.get("config", config)["precision"] == "fp16"
    trainer = Trainer(TrainConfig.load(whole / "config.json"), parts)
    trainer.run(stop_after_epoch=1)
    resumed = Trainer.resume(parts)
    assert resumed.step.scale.read() == trainer.step.scale.read()
    resumed.run()
    files = [folder / "last.safetensors" for folder in (whole, parts)]
    first, second = (load_file(f).arrays for f in files)
    assert first.keys() == second.keys()
    for name, array in first.items():
        np.testing.assert_array_equal(array, second[name])
    with pytest.raises(ConfigError, match="--precision fp16: .*only GPUs have"):
        Trainer.resume(parts, device="cpu")
