"""Copies between the host and the device: batches go there from pinned memory while a step runs,
and nothing comes back but by `.numpy()` and `.item()`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import minires as mr
from minires.data import prefetch
from minires.tensor import Tensor
from minires.train import TrainConfig, Trainer
from minires.train.watch import Watch
from tests.commands import Run
from tests.gpu.test_steps import NEVER, STEPS, batch

__all__: list[str] = []

pytestmark = pytest.mark.gpu


def test_prefetched_batches(cupy: Any, standin: Any):
    """Of changing sizes; only copies of pinned memory, nothing waits until the end."""
    given = [batch(seed, n) for seed, n in enumerate((4, 4, 4, 6, 2, 4))]
    for _ in range(2):  # takes the memory for all of them
        kept = [(x.copy(), target.copy()) for x, target in prefetch(iter(given), "cuda")]
    del kept
    coming = prefetch(iter(given), "cuda")
    found = []
    for number, (x, target) in enumerate(coming):
        assert isinstance(x, cupy.ndarray)
        found.append((x.copy(), target.copy()))
        if number == 0:
            with standin.forbidden("synchronise", "copy_unpinned", "copy_to_host", "allocate"):
                x, target = next(coming)
                found.append((x.copy(), target.copy()))
    for (x, target), (images, labels) in zip(found, given, strict=True):
        np.testing.assert_array_equal(x.get(), images)
        np.testing.assert_array_equal(target.get(), labels)
        assert target.dtype == labels.dtype
    assert list(prefetch(given, "cpu")) == given


@pytest.mark.parametrize("make", STEPS)
def test_steps_copy_the_next_batch_alone(make: Callable[[], Any], cupy: Any, standin: Any):
    """From the host to the device, and nothing the other way; all of that could be captured."""
    given, counted = [batch(seed) for seed in range(8)], 3
    step, coming = make(), prefetch(iter(given), "cuda")
    for _ in range(4):
        step(*next(coming))
    with standin.counted() as n, standin.capture_mode():
        for _ in range(counted):
            step(*next(coming))
    coming.close()
    assert n["to_device"] == counted * len(given[0])
    assert n["bytes_to_device"] == counted * sum(array.nbytes for array in given[0])
    assert not any(n[name] for name in NEVER if name != "to_device")


def test_an_abandoned_prefetch_ends_the_loader(cupy: Any):
    ended = []

    def batches() -> Iterator[Any]:
        try:
            yield from [batch()] * 9
        finally:
            ended.append(True)

    coming = prefetch(batches(), "cuda")
    next(coming)
    coming.close()
    assert ended == [True]


@contextmanager
def only_asked_for(standin: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Inside, a copy to the host raises unless `Tensor.numpy` or `Tensor.item` makes it."""
    asked: list[str] = []
    with monkeypatch.context() as patch, standin.forbidden("copy_to_host"):
        for name in ("numpy", "item"):
            method = getattr(Tensor, name)

            def allowed(self: Tensor, name: str = name, method: Any = method) -> Any:
                asked.append(name)
                with standin.forbidden():
                    return method(self)

            patch.setattr(Tensor, name, allowed)
        yield asked


def test_an_implicit_copy_is_an_error(cupy: Any, standin: Any, monkeypatch: pytest.MonkeyPatch):
    x = mr.tensor([1.0, 2.0], device="cuda")
    with only_asked_for(standin, monkeypatch) as asked:
        for wrong in (x.array.get, lambda: bool(x.array[0]), lambda: f"{x.array}"):
            with pytest.raises(RuntimeError, match="copy from the device to the host"):
                wrong()
        assert x.numpy()[1] == 2
        assert x[0].item() == 1
    assert asked == ["numpy", "item"]


def test_the_trainer_makes_no_implicit_copy(
    cupy: Any, standin: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Any
):
    """Training, evaluation, checkpoints, weight files; and the sums are read once an epoch."""
    options: dict[str, Any] = {"limit": 40, "epochs": 2, "batch_size": 8, "clip_norm": 1.0}
    options |= {"lookahead": 2, "test_views": "shifts", "dead_relus": True}
    config = TrainConfig(**options, model="wide_resnet10_1", device="cuda")
    trainer = Trainer(config, tmp_path / "run", watch=Watch(quiet=True, every=1e9))
    learn, inside = trainer.step.learn, []

    def counted(x: Any, target: Any) -> None:
        with standin.forbidden("synchronise", "copy_to_host", "copy_unpinned"):
            inside.append(standin.counts()["to_host"])
            learn(x, target)

    monkeypatch.setattr(trainer.step, "learn", counted)
    with only_asked_for(standin, monkeypatch) as asked:
        summary = trainer.run()
    assert summary["finished"]
    assert 0 <= summary["train_accuracy"] <= 1
    assert len(inside) == trainer.position.step
    per_epoch = len(inside) // 2
    assert len(set(inside[:per_epoch])) == 1  # nothing was read within an epoch
    assert "item" not in asked
    assert asked


def test_the_commands_make_no_implicit_copy(
    cupy: Any,
    standin: Any,
    monkeypatch: pytest.MonkeyPatch,
    run: Run,
    finished: Path,
    tmp_path: Any,
):
    picture, more = tmp_path / "grey.png", ("--device", "cuda", "--quiet")
    Image.new("RGB", (40, 30), "grey").save(picture)
    for command in (
        ("predict", finished, picture, *more[:2]),
        ("embed", finished, picture, "--output", tmp_path / "features.npy", *more),
        ("evaluate", finished, "--limit", 16, "--report", *more),
    ):
        with only_asked_for(standin, monkeypatch) as asked:
            code, _, err = run(*command)
        assert code == 0, err
        assert asked
