"""Folded weights: the same results, and nothing out of date, whatever changes."""

from __future__ import annotations

import copy
import gc
import pickle
import weakref
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import minires as mr
import minires.functional as F
from minires import models, nn, optim
from minires.errors import DTypeError, ShapeError
from minires.kernels.dispatch import ran
from minires.nn import folded
from tests.gpu.everywhere import TWIN
from tests.tolerances import FLOAT64, FOLDED32

__all__: list[str] = []


class Unit(nn.Module):
    """A convolution with its BatchNorm, both with values that are not the initial ones."""

    def __init__(self, rng: Any, bias: bool = False, affine: bool = True, groups: int = 1) -> None:
        self.conv = nn.Conv2d(4, 6, 3, padding=1, bias=bias, groups=groups)
        self.bn = nn.BatchNorm2d(6, affine=affine)
        self.bn.running_mean[...] = rng.standard_normal(6)
        self.bn.running_var[...] = rng.uniform(0.5, 2, 6)
        for v in (self.bn.weight, self.bn.bias) if affine else ():
            v.assign(rng.standard_normal(6))

    def forward(self, x: Any, residual: Any = None) -> Any:
        return nn.conv_norm(self.conv, self.bn, x, residual, relu=True)


@pytest.fixture
def x(rng: np.random.Generator) -> np.ndarray:
    return rng.standard_normal((2, 5, 7, 4), np.float32)


@pytest.fixture
def unit(rng: np.random.Generator, x: np.ndarray) -> Unit:
    """In evaluation mode, and called once, so that its weights are kept."""
    unit = Unit(rng).eval()
    with mr.no_grad():
        unit(x)
    return unit


def infer(model: nn.Module, *arrays: Any) -> np.ndarray:
    with mr.no_grad():
        return model(*arrays).numpy()


def unfolded(model: nn.Module, *arrays: Any) -> np.ndarray:
    """With gradients on, by a copy: nothing is folded, and nothing was kept."""
    return copy.deepcopy(model)(*arrays).numpy()


def error(a: np.ndarray, exact: np.ndarray) -> float:
    return float(np.linalg.norm(a - exact) / np.linalg.norm(exact))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(("affine", "groups"), [(True, 1), (True, 2), (False, 1)])
def test_the_same_as_convolution_and_batch_norm(rng, dtype, bias, affine, groups):
    unit = Unit(rng, bias, affine, groups).eval()
    x, residual = rng.standard_normal((8, 9, 9, 4)), rng.standard_normal((8, 9, 9, 6))
    exact = copy.deepcopy(unit).to(np.float64)(x, residual).numpy()
    y = infer(unit.to(dtype), x.astype(dtype), residual.astype(dtype))
    assert y.dtype == dtype
    assert error(y, exact) < (FOLDED32 if dtype == np.float32 else FLOAT64)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("resnet20", {}),
        ("resnet18", {"stem": "cifar", "widths": (8, 16, 24, 32)}),
        ("preact_resnet18", {"stem": "cifar", "widths": (8, 16, 24, 32)}),
        ("resnext50_32x4d", {"widths": (4, 8, 8, 8), "groups": 2, "width_per_group": 64}),
        ("article_net", {"widths": (8, 8, 16, 16, 16)}),
    ],
)
def test_whole_networks(rng, name, options):
    model = getattr(models, name)(num_classes=10, **options)
    model(rng.standard_normal((4, 32, 32, 3), np.float32))  # moves the running statistics
    model.eval()
    x = rng.standard_normal((3, 32, 32, 3), np.float32)
    exact = copy.deepcopy(model).to(np.float64)(x.astype(np.float64)).numpy()
    unfolded_error = error(unfolded(model, x), exact)
    assert error(infer(model, x), exact) < max(2 * unfolded_error, FOLDED32)


def test_no_pass_of_its_own_for_the_norm(unit, x):
    with ran() as log:
        infer(unit, x)
    assert log == [("conv2d", TWIN)]
    with ran() as log:
        unit(x)
    assert "normalise" in dict(log)


def test_gradients_flow_in_evaluation_mode(unit, x):
    infer(unit, x)
    unit(x).sum().backward()
    assert all(np.abs(p.grad).sum() > 0 for p in unit.parameters())


# -- nothing is out of date


def load(unit: Unit, other: Unit) -> None:
    unit.load_state_dict(other.state_dict())


def train_a_step(unit: Unit, x: Any) -> None:
    """Momentum and all; running statistics move as well."""
    opt = optim.SGD(unit.parameters(), lr=0.1)
    unit.train()
    unit(x).sum().backward()
    opt.step()
    unit.eval()


def step_alone(unit: Unit, x: Any) -> None:
    opt = optim.Adam([unit.conv.weight], lr=0.1)
    unit(x).sum().backward()
    opt.step()


def run_in_training(unit: Unit, x: Any) -> None:
    with mr.no_grad():
        unit.train()(x)
    unit.eval()


def track_alone(unit: Unit, x: Any) -> None:
    unit.bn.train()(F.conv2d(x, unit.conv.weight, padding=1))
    unit.eval()


def write_through_a_view(unit: Unit) -> None:
    with mr.no_grad():
        unit.conv.weight[0].assign(1.0)


def share_the_memory(unit: Unit) -> None:
    """Another tensor over the same array, whose versions start again."""
    unit.conv.weight = nn.Parameter(unit.conv.weight.array)
    unit.conv.weight.assign(2.0)


def make_plain(bn: nn.BatchNorm2d) -> None:
    bn.affine, bn.weight, bn.bias = False, None, None


def add_in_place(v: Any) -> None:
    with mr.no_grad():
        v += 1


CHANGES: dict[str, Callable[[Unit, Any], Any]] = {
    "weight assigned": lambda u, x: u.conv.weight.assign(0.5 * u.conv.weight.numpy()),
    "gamma assigned": lambda u, x: u.bn.weight.assign(2.0),
    "beta assigned": lambda u, x: u.bn.bias.assign(2.0),
    "weight added to": lambda u, x: add_in_place(u.conv.weight),
    "gamma added to": lambda u, x: add_in_place(u.bn.weight),
    "detached weight assigned": lambda u, x: u.conv.weight.detach().assign(0.1),
    "view of the weight": lambda u, x: write_through_a_view(u),
    "another weight": lambda u, x: setattr(u.conv, "weight", nn.Parameter(2 * u.conv.weight.array)),
    "weight shared": lambda u, x: share_the_memory(u),
    "array replaced": lambda u, x: setattr(u.conv.weight, "array", 2 * u.conv.weight.array),
    "gamma replaced": lambda u, x: setattr(u.bn, "weight", nn.Parameter(np.ones(6, np.float32))),
    "weights drawn anew": lambda u, x: u.conv.reset_parameters(),
    "initialised": lambda u, x: nn.init.ones_(u.conv.weight),
    "bias added": lambda u, x: setattr(u.conv, "bias", nn.Parameter(np.ones(6, np.float32))),
    "norm without gamma": lambda u, x: make_plain(u.bn),
    "mean written to": lambda u, x: u.bn.running_mean.__setitem__(2, 3.0),
    "variance written to": lambda u, x: u.bn.running_var.__imul__(2),
    "mean replaced": lambda u, x: setattr(u.bn, "running_mean", np.ones(6, np.float32)),
    "buffer registered": lambda u, x: u.bn.register_buffer("running_var", 3 * u.bn.running_var),
    "eps": lambda u, x: setattr(u.bn, "eps", 0.5),
    "another norm": lambda u, x: setattr(u, "bn", nn.BatchNorm2d(6).eval()),
    "statistics of the batch": lambda u, x: setattr(u.bn, "track_running_stats", False),
    "training mode": lambda u, x: u.train(),
    "norm's training mode": lambda u, x: u.bn.train(),
    "state loaded": lambda u, x: load(u, Unit(np.random.default_rng(5))),
    "statistics loaded": lambda u, x: u.load_state_dict({"bn.running_mean": np.ones(6)}, False),
    "a training step": train_a_step,
    "an optimiser's step in evaluation": step_alone,
    "run in training without gradients": run_in_training,
    "statistics tracked alone": track_alone,
    "geometry": lambda u, x: setattr(u.conv, "stride", 2),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_every_change_is_seen(unit, x, change):
    before = infer(unit, x)
    change(unit, x)
    twin = copy.deepcopy(unit)
    y = infer(unit, x)
    exact = unfolded(twin, x)
    assert y.shape == exact.shape
    assert error(y, exact) < FOLDED32
    assert y.shape != before.shape or error(y, before) > 0.01, "the change changes nothing"


def test_other_groups(unit, rng, x):
    unit.conv.groups = 2
    x = np.concatenate([x, -2 * x], axis=3)
    assert error(infer(unit, x), unfolded(unit, x)) < FOLDED32


def test_another_type(unit, x):
    y = infer(unit.to(np.float64), x.astype(np.float64))
    assert y.dtype == np.float64
    assert error(y, unfolded(unit, x.astype(np.float64))) < FLOAT64
    assert infer(unit.to(np.float32), x).dtype == np.float32


def test_many_steps_in_turn_with_evaluation(unit, x):
    """As in training with a validation set: each evaluation sees the step before it."""
    opt = optim.SGD(unit.parameters(), lr=1e-4, momentum=0.9)
    for _ in range(4):
        opt.zero_grad()
        unit.train()(x).sum().backward()
        opt.step()
        assert error(infer(unit.eval(), x), unfolded(unit, x)) < FOLDED32


def test_changed_back_gives_the_first_bits(unit, x):
    before, weight = infer(unit, x), unit.conv.weight.numpy().copy()
    unit.conv.weight.assign(0)
    infer(unit, x)
    unit.conv.weight.assign(weight)
    assert infer(unit, x).tobytes() == before.tobytes()


def test_two_norms_take_turns_at_one_convolution(unit, rng, x):
    other = Unit(rng).eval()
    other.conv = unit.conv
    for one in (unit, other, unit, other):
        assert error(infer(one, x), unfolded(one, x)) < FOLDED32


def test_one_weight_in_two_convolutions(unit, rng, x):
    other = Unit(rng).eval()
    other.conv.weight = unit.conv.weight
    infer(other, x)
    unit.conv.weight.assign(0.3)
    for one in (unit, other):
        assert error(infer(one, x), unfolded(one, x)) < FOLDED32


# -- what is kept


def test_kept_until_something_changes(unit, x):
    kept = folded.folded(unit.conv, unit.bn)
    assert folded.folded(unit.conv, unit.bn) is kept
    infer(unit, np.concatenate([x] * 20))
    assert folded.folded(unit.conv, unit.bn) is kept
    unit.conv.weight.bump_version()
    assert folded.folded(unit.conv, unit.bn) is not kept


def test_it_dies_with_the_convolution_and_goes_in_training(unit, x):
    gc.collect()
    count = len(folded._kept)
    infer(unit, x)
    assert len(folded._kept) == count
    unit.train()(x)
    assert len(folded._kept) == count - 1
    infer(unit.eval(), x)
    assert len(folded._kept) == count
    conv = weakref.ref(unit.conv)
    del unit.conv
    gc.collect()
    assert conv() is None
    assert len(folded._kept) == count - 1


def test_copies_pickles_and_states_hold_none_of_it(unit, x):
    y = infer(unit, x)
    assert list(unit.state_dict()) == list(Unit(np.random.default_rng(0)).state_dict())
    size = len(pickle.dumps(unit.state_dict()))
    for twin in (copy.deepcopy(unit), copy.copy(unit)):
        assert len(pickle.dumps(twin.state_dict())) == size
        assert infer(twin, x).tobytes() == y.tobytes()
    twin = copy.deepcopy(unit)
    twin.conv.weight.assign(0)
    assert infer(unit, x).tobytes() == y.tobytes()
    assert infer(twin, x).tobytes() != y.tobytes()


def test_any_number_of_threads_gives_the_same_bits(unit, x, one_thread):
    alone = infer(unit, np.concatenate([x] * 20))
    mr.set_threads(1 + (mr.kernels.memory.numba.config.NUMBA_NUM_THREADS > 1))
    assert infer(unit, np.concatenate([x] * 20)).tobytes() == alone.tobytes()


def test_errors_stay(unit, x):
    with mr.no_grad():
        with pytest.raises(ShapeError, match="x has 3 channels but w expects 4"):
            unit(x[..., :3])
        with pytest.raises(ShapeError, match=r"residual is \(2, 5, 7, 1\) but the output"):
            unit(x, np.ones((2, 5, 7, 1), np.float32))
        with pytest.raises(DTypeError, match="x is float64 but w is float32"):
            unit(x.astype(np.float64))
        unit.bn.running_mean = np.zeros(5, np.float32)
        with pytest.raises(ShapeError, match=r"running mean has shape \(5,\)"):
            unit(x)
