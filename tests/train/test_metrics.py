"""Running sums, and the files of one JSON object a line."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from minires.train.metrics import (
    METRICS,
    Tally,
    append_line,
    epoch_record,
    read_lines,
    replace_text,
    to_json,
    write_lines,
)

__all__: list[str] = []


def test_batches_of_different_sizes_count_by_image():
    tally = Tally()
    tally.add(loss=1.0, correct=3, count=3)
    tally.add(loss=5.0, correct=0, count=1)
    assert (tally.loss, tally.accuracy, tally.total) == (2.0, 0.75, 4)


def test_nothing_measured_is_none():
    assert Tally().loss is None
    assert Tally().accuracy is None
    assert math.isnan(Tally().mean_loss)


def test_a_record_has_every_column():
    record = epoch_record(2, 30, 0.1, Tally(2.0, 1, 2))
    assert tuple(record) == METRICS
    assert record["train_accuracy"] == 0.5
    assert record["val_loss"] is None
    assert record["test_accuracy"] is None


def test_json_has_no_nan():
    assert json.loads(to_json({"a": math.nan, "b": math.inf, "c": 1.5})) == {
        "a": None,
        "b": None,
        "c": 1.5,
    }


def test_lines(tmp_path: Path):
    path = tmp_path / "metrics.jsonl"
    write_lines(path, [{"epoch": 1}, {"epoch": 2}])
    append_line(path, {"epoch": 3})
    assert [record["epoch"] for record in read_lines(path)] == [1, 2, 3]
    with open(path, "a") as file:
        file.write('{"epoch": ')  # cut short
    assert [record["epoch"] for record in read_lines(path)] == [1, 2, 3]
    write_lines(path, [])
    assert read_lines(path) == []


def test_a_failed_replacement_leaves_the_old_file(tmp_path: Path, monkeypatch):
    path = tmp_path / "config.json"
    replace_text(path, "old")

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="No space"):
        replace_text(path, "new")
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["config.json"]
