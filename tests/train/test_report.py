"""Counts by class and answer, and what is said about them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from minires.train import class_report, draw_confusion, evaluate, format_report

from .test_evaluate import Constant, batches

__all__: list[str] = []

COUNTS = np.array([[5, 1, 0], [3, 6, 0], [2, 0, 0]])
NAMES = ["cat", "dog", "frog"]


def test_shares_of_each_class():
    rows = class_report(COUNTS, NAMES)["classes"]
    assert [row["class"] for row in rows] == NAMES
    assert [row["images"] for row in rows] == [6, 9, 2]
    assert [row["correct"] for row in rows] == [5, 6, 0]
    assert [row["precision"] for row in rows] == [0.5, 6 / 7, None]  # no answer "frog"
    assert [row["recall"] for row in rows] == [5 / 6, 6 / 9, 0.0]
    assert [row["f1"] for row in rows] == [pytest.approx(2 / (2 + 6 / 5)), 12 / 16, 0.0]
    assert class_report(COUNTS, NAMES)["confusion"] == COUNTS.tolist()


def test_a_class_without_images_or_answers():
    rows = class_report(np.array([[1, 0], [0, 0]]), ["a", "b"])["classes"]
    assert [rows[1][key] for key in ("precision", "recall", "f1")] == [None] * 3


def test_the_table():
    text = format_report(class_report(COUNTS, NAMES))
    lines = text.splitlines()
    assert lines[0].split() == ["class", "images", "correct", "precision", "recall", "f1"]
    assert lines[1].split() == ["cat", "6", "5", "0.500", "0.833", "0.625"]
    assert lines[3].split() == ["frog", "2", "0", "-", "0.000", "0.000"]
    assert lines[6].split() == ["0", "cat", "5", "1", "0"]
    said = "dog taken for cat 3 times; frog taken for cat 2 times; cat taken for dog 1 times"
    assert lines[-1] == f"most often: {said}"


def test_many_classes_have_no_matrix():
    text = format_report(class_report(np.eye(30, dtype=int), [f"class {k}" for k in range(30)]))
    assert len(text.splitlines()) == 31


def test_evaluation_counts():
    counts = np.zeros((2, 2), np.int64)
    evaluate(Constant(0.0, 1.0), batches([1, 1, 0], [1]), confusion=counts)
    assert counts.tolist() == [[0, 1], [0, 3]]


@pytest.mark.parametrize("count", [3, 30])
def test_the_drawing(tmp_path: Path, count: int):
    counts = np.arange(count * count).reshape(count, count)
    path = tmp_path / "confusion.png"
    draw_confusion(path, counts.tolist(), [f"class {k}" for k in range(count)])
    assert path.read_bytes()[:4] == b"\x89PNG"
    assert [p.name for p in tmp_path.iterdir()] == ["confusion.png"]
