"""What a training step of ResNet-18 takes: so many launches, and no waiting, memory or copies."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

import minires as mr
from minires import models, nn
from minires.kernels.launch import Source
from tests.gpu.test_steps import NEVER, STEPS, batch, trainer_step

__all__: list[str] = []

pytestmark = pytest.mark.gpu

A_CONVOLUTION = 12  # launches at most: forward, both gradients, BatchNorm with running statistics
# im2col and a product forward; a product and col2im, and im2col and a product, backward; two
# launches of the BatchNorm forward and two backward. Winograd: one more forward, one for dx. In 16
# bits: one more for dx
NORMS = {"find_moments", "normalise", "find_gradients", "normalise_gradient"}
GATHERS = "im2col", "im2col_narrow", "col2im", "winograd_inputs"
OF_A_CONVOLUTION = {*NORMS, *GATHERS, "winograd_outputs", "narrow"}
# Muon is array code: nine products and some thirty other launches a matrix
FEW = [step for step in STEPS if step.id != "muon"]


@contextmanager
def launched(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """The names of our kernels that the block launches."""
    names: list[str] = []
    launch = Source.launch

    def spy(self: Source, name: str, *args: Any) -> None:
        names.append(name)
        launch(self, name, *args)

    with monkeypatch.context() as patch:
        patch.setattr(Source, "launch", spy)
        yield names


def check_counts(step: Any, given: Any, standin: Any, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Of a step on a batch that lies on the device, after three; returns the names of its
    launches.
    """
    for _ in range(3):
        step(*given)
    with standin.counted() as n, launched(monkeypatch) as names:
        step(*given)
    assert {name: n[name] for name in NEVER} == dict.fromkeys(NEVER, 0)
    convolutions = sum(isinstance(m, nn.Conv2d) for m in step.model.modules())
    assert convolutions == 20
    ours = sum(name in OF_A_CONVOLUTION for name in names)
    products = n["products"] - 3  # those of the classifier
    more = names.count("winograd_outputs") + names.count("narrow")
    assert ours + products == 10 * convolutions - 2 + more  # the images need no gradient
    assert more <= 2 * convolutions
    assert ours + products <= A_CONVOLUTION * convolutions
    # every workspace fits one chunk
    assert sum(map(names.count, GATHERS)) == 3 * convolutions - 1
    # all others: pooling, classifier, loss, gradients into one place, optimiser, rates, measures
    assert n["launches"] - ours <= 30
    assert n["on_device"] == 0  # no copies within its memory either
    return names


@pytest.mark.parametrize("make", FEW)
def test_counts_at_the_depth_of_resnet18(
    make: Callable[[], Any], cupy: Any, standin: Any, monkeypatch: pytest.MonkeyPatch
):
    check_counts(make(), tuple(map(cupy.asarray, batch())), standin, monkeypatch)


@pytest.mark.slow
def test_counts_of_resnet18(cupy: Any, standin: Any, monkeypatch: pytest.MonkeyPatch):
    """Of all its widths, where large layers are Winograd's."""
    mr.manual_seed(0)
    step = trainer_step(models.resnet18(10, stem="cifar").to("cuda"), clip_norm=1.0)
    given = tuple(map(cupy.asarray, batch(side=16)))
    names = check_counts(step, given, standin, monkeypatch)
    assert names.count("winograd_outputs") >= 8  # the first stage, both ways
    with standin.capture_mode():
        step(*given)
