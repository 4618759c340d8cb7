"""Training does not depend on how many threads there are, and any number of them can be asked for.

In processes of their own: how many threads Numba starts is settled with the first kernel.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

__all__: list[str] = []

LOSSES = """
import json
import sys

import numpy as np

import minires as mr
import minires.functional as F
from minires import models, optim


def losses(name, count, steps):
    mr.set_threads(count)
    mr.manual_seed(0)
    model = models.build(name, 10, "cifar")
    opt = optim.SGD(model.parameters(), lr=0.01, momentum=0.9, weight_decay=5e-4)
    found = []
    for step in range(steps):
        rng = np.random.default_rng(step)
        images = rng.standard_normal((7, 32, 32, 3), np.float32)
        loss = F.cross_entropy(model(images), rng.integers(0, 10, 7))
        opt.zero_grad()
        loss.backward()
        opt.step()
        found.append(loss.item())
    return found


name, steps = sys.argv[1], int(sys.argv[2])
print(json.dumps([losses(name, count, steps) for count in (3, 2, 1)]))
"""

STARTED = """
import numba
import minires as mr
mr.set_threads({count})
print(mr.threads(), numba.config.NUMBA_NUM_THREADS >= {count}, numba.threading_layer())
try:
    mr.set_threads(numba.config.NUMBA_NUM_THREADS + 1)
except ValueError as error:
    print(error)
"""


def run(env: dict[str, Any], code: str, *words: str) -> str:
    """The output of a Python program."""
    command = [sys.executable, "-c", code, *words]
    child = subprocess.run(command, env=env, capture_output=True, text=True)
    assert child.returncode == 0, child.stderr
    return child.stdout


@pytest.mark.parametrize(
    ("name", "steps"),
    [
        ("resnet20", 3),
        pytest.param("resnet20", 100, marks=pytest.mark.slow),
        pytest.param("resnet18", 100, marks=pytest.mark.slow),
    ],
)
def test_losses_are_the_same_bits_with_1_2_and_3_threads(child_env, name: str, steps: int):
    three, two, one = json.loads(run(child_env, LOSSES, name, str(steps)))
    assert len(one) == steps
    assert three == two == one
    assert len(set(one)) == steps  # it does learn


def test_more_threads_than_cores(child_env):
    out = run(child_env, STARTED.format(count=5)).splitlines()
    assert out[0].startswith("5 True ")
    assert "but Numba has started" in out[1]
    assert "NUMBA_NUM_THREADS" in out[1]


@pytest.mark.parametrize("wanted", ["workqueue", None])
def test_openmp_unless_the_environment_says_otherwise(child_env, wanted: str | None):
    env = {name: v for name, v in child_env.items() if name != "NUMBA_THREADING_LAYER"}
    if wanted is None:
        pytest.importorskip("numba.np.ufunc.omppool", reason="Numba has no OpenMP here")
    else:
        env["NUMBA_THREADING_LAYER"] = wanted
    found = run(env, STARTED.format(count=1))
    assert found.split()[2] == (wanted or "omp")


@pytest.mark.parametrize(
    "model",
    [
        "wide_resnet10_1 --optimizer muon --whiten",
        "whitened_resnet --crop 2 --reflect --lookahead 2 --test-views shifts",
    ],
)
def test_runs_are_the_same_bits_with_1_2_and_5_threads(child_env, tmp_path: Path, model: str):
    def train(count: int) -> tuple[bytes, bytes]:
        out = tmp_path / str(count)
        words = ["train", "--model", *model.split(), "--limit", "40", "--batch-size", "8"]
        words += ["--epochs", "1", "--threads", str(count), "--out", str(out)]
        command = [sys.executable, "-m", "minires", *words]
        child = subprocess.run(command, env=child_env, capture_output=True, text=True)
        assert child.returncode == 0, child.stderr
        assert f"{count} thread" in child.stdout
        return (out / "metrics.jsonl").read_bytes(), (out / "last.safetensors").read_bytes()

    one = train(1)
    assert train(2) == one
    assert train(5) == one  # more than there are cores
