"""The memory of training: it does not grow, and what a caller keeps is never written to again.

In processes of their own: peak memory is one of the whole process.
"""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest

__all__: list[str] = []

STEPS = """
import json
import resource
import sys

import numpy as np

import minires as mr
import minires.functional as F
from minires import models, optim
from minires.kernels.memory import pool

rng = np.random.default_rng(0)
mr.manual_seed(0)
model = models.build(sys.argv[1], 10, "cifar")
batch = int(sys.argv[2])
opt = optim.SGD(model.parameters(), lr=0.01, momentum=0.9, weight_decay=5e-4)


def step():
    images = rng.standard_normal((batch, 32, 32, 3), np.float32)
    y = model(images)
    loss = F.cross_entropy(y, rng.integers(0, 10, batch))
    opt.zero_grad()
    loss.backward()
    opt.step()
    return y, loss
"""

GROWTH = """
def used():
    unit = 1 if sys.platform == "darwin" else 1024  # bytes
    peak = unit * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {"areas": pool.fresh, "in use": pool.in_use, "peak": peak}


for number in range(1, int(sys.argv[3]) + 1):
    step()
    if number == 20:
        before = used()
print(json.dumps([before, used()]))
"""

KEPT = """
def keep():
    x = rng.standard_normal((batch, 32, 32, 3), np.float32)
    stages = model.features(x)
    stages[-1].sum().backward()
    first = [p.grad for p in model.parameters() if p.grad is not None]
    y, loss = step()
    arrays = [v.numpy() for v in (y, loss, *stages)]
    arrays += [stages[0].array, stages[0].detach().numpy()[1:, ::2]]
    return arrays + first + [p.grad for p in model.parameters()]


kept = [keep() for _ in range(int(sys.argv[3]))]
copies = [[np.array(v) for v in arrays] for arrays in kept]
assert all(np.isfinite(v).all() for arrays in copies for v in arrays)
for _ in kept:
    keep()
changed = [
    (number, index)
    for number, (arrays, before) in enumerate(zip(kept, copies))
    for index, (a, b) in enumerate(zip(arrays, before))
    if a.tobytes() != b.tobytes()
]
print(json.dumps([len(kept), sum(map(len, kept)), changed]))
"""


def run(env: dict[str, Any], code: str, *words: str) -> Any:
    """What a Python program prints as JSON."""
    command = [sys.executable, "-c", STEPS + code, *words]
    child = subprocess.run(command, env=env, capture_output=True, text=True)
    assert child.returncode == 0, child.stderr
    return json.loads(child.stdout)


@pytest.mark.compiled
@pytest.mark.parametrize(
    ("name", "batch", "steps"),
    [
        ("resnet20", 8, 60),
        pytest.param("resnet20", 128, 200, marks=pytest.mark.slow),
        pytest.param("resnet18", 128, 200, marks=pytest.mark.slow),
    ],
)
def test_training_does_not_grow(child_env, name: str, batch: int, steps: int):
    before, after = run(child_env, GROWTH, name, str(batch), str(steps))
    assert after["areas"] == before["areas"]
    assert after["in use"] == before["in use"]
    assert after["peak"] - before["peak"] < 4 << 20  # interpreter and libraries, not arrays


@pytest.mark.compiled
def test_what_is_kept_stays(child_env):
    """Outputs, losses, activations, views and gradients of 50 steps, after 50 more."""
    steps, arrays, changed = run(child_env, KEPT, "resnet20", "2", "50")
    assert steps == 50
    assert arrays > 50 * 100
    assert changed == []
