"""The benchmark of the first step: a cold process before the warm ones, and bounds."""

from __future__ import annotations

import json

import pytest

from benchmarks import first

__all__: list[str] = []


@pytest.mark.parametrize(("cold", "warm", "holds"), [(59, 4, True), (61, 4, False), (9, 6, False)])
def test_the_first_process_has_an_empty_folder(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    cold: float,
    warm: float,
    holds: bool,
):
    folders = []

    def step(model: str, batch: int, folder: str) -> float:
        folders.append(folder)
        return warm if len(folders) > 1 else cold

    monkeypatch.setattr(first, "first_step", step)
    assert first.main(["--json", "--rounds", "2"]) == (0 if holds else 1)
    found = json.loads(capsys.readouterr().out)
    assert (found["cold_s"], found["warm_s"], found["holds"]) == (cold, warm, holds)
    assert len(folders) == 3
    assert len(set(folders)) == 1


@pytest.mark.slow
def test_a_first_step(tmp_path):
    assert first.first_step("resnet20", 1, str(tmp_path)) > 0
    assert list(tmp_path.glob("minires-*"))
