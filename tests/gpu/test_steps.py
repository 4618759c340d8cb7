"""A training step on the device: it can be captured, as it waits for nothing, allocates nothing and
has the same arguments each time; a CUDA graph of it, and the trainer's, do what plain steps do."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import minires as mr
import minires.functional as F
from minires import models, optim
from minires.errors import NonFiniteError
from minires.models.resnet import BasicBlock, ResNet
from minires.tensor import Tensor
from minires.train.finetune import muon_groups, parameter_groups
from minires.train.metrics import Tally
from minires.train.step import TrainStep
from tests.tolerances import GPU_STEP32

__all__: list[str] = []

pytestmark = pytest.mark.gpu

WIDTHS = 8, 16, 32, 64  # an eighth of ResNet-18's, and its depth
NEVER = "synchronisations", "to_host", "to_device", "unpinned", "allocations"


def network(**options: Any) -> Any:
    """ResNet-18 with the CIFAR stem, narrow, on the device."""
    mr.manual_seed(0)
    return ResNet(BasicBlock, (2, 2, 2, 2), 10, "cifar", widths=WIDTHS, **options).to("cuda")


def batch(seed: int = 0, n: int = 4, side: int = 8) -> tuple[np.ndarray, np.ndarray]:
    """Images of side x side pixels and labels."""
    rng = np.random.default_rng(seed)
    return rng.standard_normal((n, side, side, 3)).astype(np.float32), rng.integers(0, 10, n)


class Hand:
    """A loop as a user writes it. kind: of optimiser; drop: share of dropout."""

    def __init__(self, kind: str = "sgd", drop: float = 0.0, model: Any = None) -> None:
        self.model, self.drop = model or network(), drop
        if kind == "sgd":
            groups = optim.no_decay_groups(self.model, 5e-4)
            self.optimizer: Any = optim.SGD(groups, 0.1, momentum=0.9, nesterov=True)
        elif kind == "muon":
            groups = muon_groups(self.model, parameter_groups(self.model, 0.1, 5e-4), 0.05, 0.1)
            self.optimizer = optim.Muon(groups, 0.05)
        else:
            self.optimizer = optim.AdamW(self.model.parameters(), 1e-2)
        self.schedule = optim.CosineLR(self.optimizer, 20)

    def learn(self, x: Any, target: Any) -> Any:
        """All but the schedule."""
        target = target.array if isinstance(target, Tensor) else target
        self.optimizer.zero_grad()
        logits = self.model(F.dropout(x, p=self.drop) if self.drop else x)
        loss = F.cross_entropy(logits, target, label_smoothing=0.1)
        loss.backward()
        self.optimizer.step()
        return loss

    def __call__(self, x: Any, target: Any) -> Any:
        loss = self.learn(x, target)
        self.schedule.step()
        return loss


def trainer_step(model: Any = None, **options: Any) -> TrainStep:
    """The trainer's step."""
    model = model or network()
    optimizer = optim.SGD(optim.no_decay_groups(model, 5e-4), 0.1, momentum=0.9, nesterov=True)
    return TrainStep(model, optimizer, optim.CosineLR(optimizer, 20), **options)


STEPS: list[Any] = [
    pytest.param(Hand, id="hand"),
    pytest.param(lambda: Hand("adamw", drop=0.2), id="adamw-dropout"),
    pytest.param(lambda: Hand("muon"), id="muon"),
    pytest.param(lambda: trainer_step(clip_norm=1.0, label_smoothing=0.1), id="trainer"),
    pytest.param(lambda: trainer_step(precision="fp16"), id="fp16"),
]


@pytest.mark.parametrize("make", STEPS)
def test_a_step_runs_in_capture_mode(make: Callable[[], Any], cupy: Any, standin: Any):
    step = make()
    given = [tuple(map(cupy.asarray, batch(seed))) for seed in range(4)]
    for one in given[:3]:
        step(*one)
    with standin.capture_mode():
        step(*given[3])


def test_capture_mode_raises(cupy: Any, standin: Any):
    loss, host = Hand()(*map(cupy.asarray, batch())), np.ones(1, np.float32)
    copy = loss.array.data.copy_from_host
    for wrong in (loss.item, lambda: copy(host.ctypes.data, 4), lambda: cupy.cuda.alloc(2**32)):
        with standin.capture_mode(), pytest.raises(RuntimeError, match="forbidden"):
            wrong()


def in_order(memory: Any) -> Callable[[int], Any]:
    """An allocator that hands out the same places in every step."""
    used = 0

    def allocate(size: int) -> Any:
        nonlocal used
        place, used = memory + used, used + -(-size // 512) * 512
        return place

    return allocate


@pytest.mark.parametrize("make", STEPS)
def test_two_steps_have_the_same_arguments(make: Callable[[], Any], cupy: Any, standin: Any):
    """All launches, products and copies: only what is in the GPU's memory differs."""
    step = make()
    x, target = map(cupy.asarray, batch())
    optimizer, seen = step.optimizer, []
    keys, memory = cupy.zeros(1, np.uint64), cupy.cuda.alloc(2**26)
    step(x, target)
    for number in range(4):
        x[...], target[...] = map(cupy.asarray, batch(number))
        optimizer.prepare()
        keys.fill(number)
        places = in_order(memory)
        counted = mr.random.counted_on_gpu(keys)
        with cupy.cuda.using_allocator(places), counted, standin.recorded() as calls:
            step.learn(x, target)
        step.schedule.step()
        seen.append(calls)
    assert len(seen[-1]) > 200
    assert seen[-1] == seen[-2]
    assert optimizer.param_groups[0]["lr"] < step.schedule.base[0]  # and yet that has changed


@pytest.mark.parametrize(("kind", "drop"), [("sgd", 0.0), ("adamw", 0.3), ("muon", 0.0)])
def test_a_graph_does_what_the_steps_do(kind: str, drop: float, cupy: Any, standin: Any):
    """On the stand-in, which repeats what was queued; rates, keys and the batch change."""
    given = [batch(seed) for seed in range(7)] + [batch(7, n=3)] + [batch(8)]
    losses, positions = [], []
    for captured in (False, True):
        run = Hand(kind, drop)
        learn = mr.graph(run.learn, run.optimizer) if captured else run.learn
        losses.append([])
        for one in given:
            loss = learn(*map(cupy.asarray, one))
            run.schedule.step()
            losses[-1].append(loss.item())
        state = run.optimizer.state_dict()["state"]
        assert {entry["step"] for entry in state} == {len(given)}
        positions.append(mr.random.get_state()["position"])
    assert losses[0] == losses[1]
    assert positions[0] == positions[1]
    assert len(set(losses[0])) == len(given)


def test_a_graph_is_one_launch(cupy: Any, standin: Any):
    run, one = Hand(), tuple(map(cupy.asarray, batch()))
    learn = mr.graph(run.learn, run.optimizer)
    for _ in range(4):
        learn(*one)
    with standin.counted() as n, standin.capture_mode():
        learn(*one)
    assert n["graphs"] == 1
    assert n["launches"] <= 2  # the batch goes where the graph reads it
    assert not any(n[name] for name in NEVER)


def test_a_frozen_part_has_a_shorter_graph(cupy: Any, standin: Any):
    runs = [Hand(), Hand()]
    for run in runs:
        for p in run.model.layer1.parameters():
            p.requires_grad = False
    learn = mr.graph(runs[1].learn, runs[1].optimizer)
    for seed in range(5):
        one = tuple(map(cupy.asarray, batch(seed)))
        assert runs[0].learn(*one).item() == learn(*one).item()


# The trainer


def test_the_trainers_step_is_the_cpus(cupy: Any):
    """Losses, right answers, the clipped update."""
    steps, given = [], batch(n=8)
    for device in ("cpu", "cuda"):
        mr.manual_seed(1)
        model = models.build("resnet20", 10).to(device)
        optimizer = optim.SGD(model.parameters(), 0.05, momentum=0.9)
        steps.append(TrainStep(model, optimizer, optim.CosineLR(optimizer, 9), clip_norm=0.5))
    tally, measured = Tally(), Tally()
    for _ in range(2):
        result = steps[0](*given)
        tally.add(result.loss or 0.0, result.correct or 0, 8)
        assert steps[1](*map(cupy.asarray, given)).loss is None
        assert steps[1].read(measured).lost == 0
    assert measured.loss_sum == pytest.approx(tally.loss_sum, rel=GPU_STEP32)
    assert measured.correct == tally.correct
    assert steps[1].sums is not None
    assert steps[1].sums.read().norms > result.norm
    assert steps[1].sums.read().norm == pytest.approx(result.norm, rel=1e-3)
    for p, q in zip(*(step.model.parameters() for step in steps), strict=True):
        np.testing.assert_allclose(q.numpy(), p.numpy(), rtol=1e-3, atol=1e-5)


def test_nan_leaves_the_weights_alone(cupy: Any):
    step = trainer_step()
    good, bad = tuple(map(cupy.asarray, batch())), tuple(map(cupy.asarray, batch()))
    bad[0][1, 2, 3, 0] = np.nan
    step(*good)
    before = {name: p.numpy() for name, p in step.model.named_parameters()}
    momentum = [e["momentum_buffer"].get() for e in step.optimizer.state_dict()["state"]]
    tally = Tally()
    step.read(tally)
    loss_sum = tally.loss_sum
    for one in (bad, good, good):
        step(*one)
    assert step.read(tally).lost == 3
    assert tally.loss_sum == loss_sum
    for name, p in step.model.named_parameters():
        np.testing.assert_array_equal(p.numpy(), before[name])
    for entry, m in zip(step.optimizer.state_dict()["state"], momentum, strict=True):
        np.testing.assert_array_equal(entry["momentum_buffer"].get(), m)
    assert all(np.isfinite(array.get()).all() for _, array in step.model.named_buffers())
    assert isinstance(step.blame(), NonFiniteError)


def test_clipping_by_hand_waits_for_nothing(cupy: Any, standin: Any):
    norms = []
    for device in ("cpu", "cuda"):
        params = [mr.tensor(np.arange(n, dtype=np.float32), device=device) for n in (3, 20_000)]
        for p in params:
            p.grad = p.array.copy()
        optim.clip_grad_norm_(params, 2.0)
        for p in params:
            p.grad = p.array.copy()
        with standin.forbidden("synchronise", "copy_to_host"):
            norm = optim.clip_grad_norm_(params, 2.0)
        norms.append(float(norm))
        assert float((params[1].grad.astype(float) ** 2).sum()) == pytest.approx(4, rel=1e-5)
    assert norms[0] == pytest.approx(norms[1], rel=1e-12)
