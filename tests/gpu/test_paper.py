"""The model on paper, checked by the counts: a real step on the device launches what it says."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest

import minires.functional as F
from benchmarks import gpu
from minires import models, optim
from minires.backend import to_device
from minires.kernels.launch import Source

__all__: list[str] = []

pytestmark = pytest.mark.gpu

N = 2


def on_paper(model: str) -> list[gpu.Launch]:
    sizes = [p.size for p in models.build(model, **gpu.MODELS[model][0]).parameters()]
    return [*gpu.step_launches(gpu.trace(model), N), *gpu.updates(sizes)]


def test_a_step_launches_what_the_paper_says(
    cupy: Any, standin: Any, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
):
    """As often, and on as many bytes, to 5 %: sums and numbers of channels are not on paper."""
    arguments, side = gpu.MODELS["resnet20"]
    network = models.build("resnet20", **arguments).to("cuda")
    optimizer = optim.SGD(network.parameters(), 0.1, momentum=0.9)
    images = rng.standard_normal((N, side, side, 3), np.float32)
    x, y = to_device(images, "cuda"), to_device(rng.integers(0, 10, N), "cuda")

    def step() -> None:
        loss = F.cross_entropy(network(x), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    step()
    launches, moved, launch = Counter[str](), Counter[str](), Source.launch

    def recorded(self: Source, name: str, grid: Any, block: Any, *args: Any) -> None:
        launches[name] += 1
        moved[name] += sum(a.nbytes for a in args if isinstance(a, cupy.ndarray))
        launch(self, name, grid, block, *args)

    monkeypatch.setattr(Source, "launch", recorded)
    with standin.counted() as counts:
        step()
    paper = on_paper("resnet20")
    expected = Counter(u.kernel for u in paper)
    assert counts["products"] == expected.pop("product") + 3  # and the classifier's
    assert launches == expected + Counter(softmax_loss=1, softmax_loss_gradient=1)
    moved["sgd"] = moved["sgd"] // 3 * 5  # weights and momentum are read and written
    for kernel in expected:
        numbers = sum(u.numbers for u in paper if u.kernel == kernel)
        # left out on paper: sums of parts of the rows, counters of blocks, and what dx is added to
        share = 0.2 if kernel.startswith(("find_", "winograd_outputs")) else 0.05
        assert moved[kernel] == pytest.approx(gpu.NUMBER * numbers, rel=share), kernel
