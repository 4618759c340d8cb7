"""The curves are drawn, also of one epoch and of none, and matplotlib waits until then."""

from __future__ import annotations

import gc
import subprocess
import sys
import weakref
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from minires.train import keeper
from minires.train.metrics import Position, Tally, epoch_record
from minires.train.plots import draw_curves

__all__: list[str] = []


@pytest.mark.parametrize("epochs", [0, 1, 5])
def test_curves(tmp_path: Path, epochs: int):
    records = [
        epoch_record(e, 10 * e, 0.1, Tally(9.0 / e, e, 10), test=Tally(2, 1, 2) if e == 5 else None)
        for e in range(1, epochs + 1)
    ]
    draw_curves(tmp_path / "curves.png", records, title="a run")
    with Image.open(tmp_path / "curves.png") as image:
        assert image.size == (900, 360)
        assert len(np.unique(np.asarray(image.convert("RGB")))) > 10
    assert [p.name for p in tmp_path.iterdir()] == ["curves.png"]


def test_a_run_keeps_no_figure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    from matplotlib.figure import Figure

    figures: list[Any] = []

    def draw(path: Path, records: Any, title: str) -> None:
        figure = Figure()  # refers to itself through its subplots
        figure.subplots()
        figures.append(weakref.ref(figure))

    monkeypatch.setattr(keeper, "draw_curves", draw)
    run: Any = SimpleNamespace(_drawn=0.0, folder=SimpleNamespace(curves=tmp_path, path=tmp_path))
    gc.disable()
    try:
        keeper.Keeper.draw(run, Position(), force=True)
        assert [figure() for figure in figures] == [None]
    finally:
        gc.enable()


def test_matplotlib_is_not_imported_before(child_env: dict):
    code = "import sys, minires.cli; print('matplotlib' in sys.modules, 'cupy' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], env=child_env, capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == ["False", "False"]
