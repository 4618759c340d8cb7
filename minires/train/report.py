"""What a network gets right and wrong, class by class."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

__all__ = ["class_report", "format_report"]

WIDEST = 20  # classes whose confusion matrix fits a terminal
PAIRS = 5  # confusions named below the table


def class_report(confusion: np.ndarray, classes: Sequence[str]) -> dict[str, Any]:
    """The counts (k, k) of images by class (row) and answer (column), as plain values.

    {"classes": [{"class", "images", "correct", "precision", "recall", "f1"}, …], "confusion": rows}

    precision: the share of right ones among the answers "this class"; recall: among its images; f1:
    their harmonic mean. None where there is nothing to divide by.

    >>> report = class_report(np.array([[3, 1], [0, 4]]), ["cat", "dog"])
    >>> report["classes"][0]["precision"], report["classes"][0]["recall"]
    (1.0, 0.75)
    """
    rows = []
    answers = confusion.sum(axis=0)
    for k, name in enumerate(classes):
        images, right = int(confusion[k].sum()), int(confusion[k, k])
        both = images + int(answers[k])
        rows.append(
            {
                "class": str(name),
                "images": images,
                "correct": right,
                "precision": right / int(answers[k]) if answers[k] else None,
                "recall": right / images if images else None,
                "f1": 2 * right / both if both else None,
            }
        )
    return {"classes": rows, "confusion": confusion.tolist()}


def format_report(report: dict[str, Any]) -> str:
    """The same as a table, the confusion matrix where it is narrow enough, and what was confused
    most often.
    """
    rows = report["classes"]
    width = max(len("class"), *(len(row["class"]) for row in rows))
    lines = [f"{'class':{width}}  images  correct  precision  recall     f1"]
    for row in rows:
        shares = f"{_share(row['precision']):>9}  {_share(row['recall']):>6}  {_share(row['f1'])}"
        lines.append(f"{row['class']:{width}}  {row['images']:6}  {row['correct']:7}  {shares}")
    names, confusion = [row["class"] for row in rows], np.array(report["confusion"])
    if len(rows) <= WIDEST:
        lines += ["", *_matrix(confusion, names, width)]
    pairs = _confused(confusion)
    if pairs:
        texts = (f"{names[i]} taken for {names[j]} {count:,} times" for i, j, count in pairs)
        lines += ["", f"most often: {'; '.join(texts)}"]
    return "\n".join(lines)


def _share(value: float | None) -> str:
    return "     -" if value is None else f"{value:6.3f}"


def _matrix(confusion: np.ndarray, names: Sequence[str], width: int) -> list[str]:
    cell = max(len(str(confusion.max())), len(str(len(names) - 1))) + 1
    head = "".join(f"{k:{cell}}" for k in range(len(names)))
    lines = [f"{'answer:':>{width + 4}}{head}"]
    for k, name in enumerate(names):
        counts = "".join(f"{count:{cell}}" for count in confusion[k])
        lines.append(f"{k:3} {name:{width}}{counts}")
    return lines


def _confused(confusion: np.ndarray) -> list[tuple[int, int, int]]:
    """(class, answer, count) of the most frequent wrong answers."""
    wrong = confusion - np.diag(np.diag(confusion))
    order = np.argsort(-wrong, axis=None, kind="stable")[:PAIRS]
    found = [divmod(int(at), len(wrong)) for at in order]
    return [(i, j, int(wrong[i, j])) for i, j in found if wrong[i, j]]
