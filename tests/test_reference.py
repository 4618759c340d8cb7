"""minires agrees with what PyTorch computed; `python -m benchmarks.reference` prints the table."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks import reference
from minires.functional import __all__ as exported
from minires.op import OPS
from tests.reference import pure
from tests.reference.cases import CASES
from tests.reference.networks import NETWORKS

__all__: list[str] = []

COMPARED = sorted({case.op for case in CASES})
CALLED_OTHERWISE = {"pow": "power"}
WITHOUT_MATHEMATICS = {"astype"}


@pytest.mark.parametrize("op", COMPARED)
def test_op(op: str) -> None:
    for row in reference.op_rows([op]):
        assert row.ok, str(row)


def test_every_op_is_compared() -> None:
    compared = {CALLED_OTHERWISE.get(op, op) for op in COMPARED} | WITHOUT_MATHEMATICS
    assert set(OPS) & set(exported) <= compared


@pytest.mark.usefixtures("one_thread")
def test_training() -> None:
    rows = list(reference.training_rows())
    assert len(rows) == 22
    assert [str(row) for row in rows if not row.ok] == []


@pytest.mark.parametrize("name", sorted({name for name, _, _ in NETWORKS}))
def test_network(name: str) -> None:
    for row in reference.network_rows([name]):
        assert row.ok, str(row)


def test_the_command_prints_json(root: Path, child_env: dict[str, Any]) -> None:
    command = [sys.executable, "-m", "benchmarks.reference", "--json", "add", "conv2d"]
    done = subprocess.run(command, cwd=root, env=child_env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout.splitlines()[-1])
    assert answer["ok"]
    assert {row["name"] for row in answer["rows"]} == {"add", "conv2d"}


def test_the_command_fails_when_something_is_out(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(reference.CALLS, "neg", lambda x: x * -1.001)
    assert reference.main(["neg"]) == 1
    assert "OUT" in capsys.readouterr().out
    monkeypatch.setitem(reference.CALLS, "neg", lambda x: x.nothing)
    assert reference.main(["neg"]) == 1
    assert "AttributeError" in capsys.readouterr().out
    monkeypatch.setitem(reference.CALLS, "neg", lambda x: x * np.nan)
    assert reference.main(["neg"]) == 1
    assert reference.main(["no_such_op"]) == 1


def test_pure_numbers_stay_what_they_are() -> None:
    # a change of these would ask for new files from every script
    assert [hex(i) for i in pure.bits("x", 2)] == ["0xd0aa5ffd737b2991", "0x43fe751f10690c55"]
    assert pure.uniform("x", (1,)).item() == 0xD0AA5F * 2.0**-23 - 1
    values = pure.values("many", (1000,))
    assert abs(values.mean()) < 0.1
    np.testing.assert_array_equal(values.astype(np.float32), values)


def test_a_sketch_shows_one_wrong_element() -> None:
    a = pure.values("a", (50, 50))
    b = a.copy()
    b[17, 31] += 1e-6
    assert 1e-9 < pure.relative_rms(pure.sketch(b), pure.sketch(a)) < 1e-7
    assert pure.relative_rms(pure.sketch(a.T), pure.sketch(a)) > 0.5
