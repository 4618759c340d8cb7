"""The step benchmark checks before it times; here minires plays the rival."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from benchmarks import step
from minires import models

__all__: list[str] = []
pytestmark = pytest.mark.usefixtures("one_thread")

KEYS = {"minires", "rival", "ratio", "spread", "peak_rss_mb", "cpu", "isa", "dtype", "variant"}


@pytest.fixture
def own_rival(monkeypatch: pytest.MonkeyPatch) -> dict[str, float]:
    """The rival is minires itself, with all its outputs multiplied by `factor`."""
    how = {"factor": 1.0}

    def rival_step(_against: str, _variant: str, network: Any, mode: str, *data: Any) -> Any:
        name, arguments, state = network
        model = getattr(models, name)(**arguments)
        model.load_state_dict(state)
        run = step.our_step(model, mode, *data[:2])
        return lambda: run() * how["factor"]

    monkeypatch.setattr(step, "rival_step", rival_step)
    monkeypatch.setattr(step, "rival_version", lambda against: "0")
    monkeypatch.setattr(step, "memory_alone", lambda *given: 1.0)
    monkeypatch.setattr(step, "TURN", 0.0)
    return how


@pytest.mark.parametrize("mode", ["train", "infer"])
def test_it_prints_speeds_and_ratio(
    own_rival: dict[str, float], mode: str, capsys: pytest.CaptureFixture[str]
) -> None:
    options = f"--model resnet20 --batch 2 --rounds 2 --threads 1 --mode {mode} --json"
    assert step.main(options.split()) == 0
    row = json.loads(capsys.readouterr().out)
    assert row.keys() >= KEYS
    assert row["minires"] > 0
    assert row["spread"][0] <= row["ratio"] <= row["spread"][1]


@pytest.mark.parametrize("factor", [1.01, np.nan])
def test_engines_that_disagree_are_not_timed(own_rival: dict[str, float], factor: float) -> None:
    own_rival["factor"] = factor
    options = "--model resnet20 --batch 2 --mode infer --threads 1 --variants eager"
    with pytest.raises(SystemExit, match=r"minires and torch \(eager\) differ by .*, allowed are"):
        step.main(options.split())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("--dtype bf16", "--dtype bf16: precision is 'bf16' but this CPU has no AVX512_BF16"),
        ("--against onnxruntime --mode train", "--against onnxruntime: only --mode infer in"),
    ],
)
def test_what_cannot_be_is_refused_on_one_line(
    options: str, message: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("minires.kernels.bf16.AVAILABLE", False)
    assert step.main([*options.split(), "--threads", "1"]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
