"""Which mistake a wrong Jacobian looks like: each pattern is tried, and those that fit are told
with their evidence.

`a` and `n` are the analytic and the numeric Jacobian, (outputs, elements of the input); `wrong`
marks where they differ.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

__all__ = ["likely_patterns", "where_wrong"]

ALIKE = 1e-5  # relative to the largest element: how well a pattern must fit
MOST = 2  # patterns told

Shape = tuple[int, ...]


def likely_patterns(a: np.ndarray, n: np.ndarray, wrong: np.ndarray, shape: Shape) -> list[str]:
    """Up to two sentences, the likeliest first.

    >>> n = np.arange(1.0, 7).reshape(2, 3)
    >>> likely_patterns(-n, n, n > 0, (3,))
    ['the sign is flipped: analytic = -numeric']
    """
    if not np.isfinite(a).all():
        return [
            f"the gradient itself holds NaN or Inf ({np.count_nonzero(~np.isfinite(a))} elements)"
        ]
    if not np.isfinite(n).all():
        return ["the function is NaN or Inf beside the input: move it off the edge of the domain"]
    found: list[str] = []
    for pattern in (
        _zero,
        _precision,
        _factor,
        _moved,
        _axis_factor,
        _offset,
        _left_out,
        _mask,
        _diagonal,
    ):
        found += pattern(a, n, wrong, shape)
        if found and pattern in (_zero, _precision, _factor, _moved):
            break
    return found[:MOST]


def _alike(x: np.ndarray, y: np.ndarray) -> bool:
    size = np.abs(y).max(initial=0.0)
    return bool(size > 0 and np.abs(x - y).max(initial=0.0) <= ALIKE * size)


def _zero(a: np.ndarray, n: np.ndarray, wrong: np.ndarray, shape: Shape) -> Iterator[str]:
    if not a.any():
        yield "the gradient is zero everywhere: it is not propagated to this input"


def _factor(a: np.ndarray, n: np.ndarray, wrong: np.ndarray, shape: Shape) -> Iterator[str]:
    """analytic = c * numeric."""
    square = float((n * n).sum())
    c = float((a * n).sum()) / square if square else 0.0
    if not c or not _alike(a, c * n):
        return
    if abs(c + 1) < ALIKE:
        yield "the sign is flipped: analytic = -numeric"
        return
    kind = "missing" if abs(c) > 1 else "extra"
    fault = "wrong" if c < 0 else "missing or extra"
    text = f"a constant factor is {fault}: analytic = {c:.8g} * numeric"
    whole = 1 / c if kind == "extra" else c
    if abs(whole - round(whole)) < 1e-4 and abs(whole) > 1:
        axes = [str(k) for k, size in enumerate(shape) if size == abs(round(whole))]
        text += f" = numeric {'/' if kind == 'extra' else '*'} {round(whole)}"
        text += f" (the size of axis {' and '.join(axes)} of this input)" if axes else ""
    yield text


def _precision(a: np.ndarray, n: np.ndarray, wrong: np.ndarray, shape: Shape) -> Iterator[str]:
    size = np.abs(n).max()
    apart = np.abs(a - n).max() / size if size else np.inf
    if apart < ALIKE:
        right = f"right to {apart:.1g} of the largest element"
        yield f"{right}: computed in float32 on the way, or a constant has too few digits"


def _moved(a: np.ndarray, n: np.ndarray, wrong: np.ndarray, shape: Shape) -> Iterator[str]:
    """The right numbers in the wrong places: transposed, reversed or shifted axes."""
    rows = len(n)
    numeric = n.reshape(rows, *shape)
    if not n.any():
        return
    axes = range(len(shape))
    for order in itertools.permutations(axes) if len(shape) <= 4 else ():
        if order == tuple(axes):
            continue
        turned = numeric.transpose(0, *(k + 1 for k in order))
        if _alike(a, turned.reshape(rows, -1)):
            how = "transposed" if turned.shape == numeric.shape else "transposed and reshaped"
            yield f"{how}: analytic is numeric with the input's axes in the order {order}"
            return
    several = [k for k in axes if shape[k] > 1]
    for count in range(1, len(several) + 1):
        for flipped in itertools.combinations(several, count):
            if _alike(a, np.flip(numeric, tuple(k + 1 for k in flipped)).reshape(rows, -1)):
                yield f"reversed along axis {' and '.join(map(str, flipped))} of the input"
                return
    for k in several:
        for by in (1, -1):
            rolled = np.roll(numeric, by, k + 1)
            keep = [slice(None)] * numeric.ndim
            keep[k + 1] = slice(1, None) if by > 0 else slice(None, -1)
            if _alike(a.reshape(numeric.shape)[tuple(keep)], rolled[tuple(keep)]):
                yield f"shifted by {by:+d} along axis {k} of the input (off by one?)"
                return


def _axis_factor(a: np.ndarray, n: np.ndarray, wrong: np.ndarray, shape: Shape) -> Iterator[str]:
    """A factor that depends on the index along one axis: a term a channel, say."""
    for k, size in enumerate(shape):
        if size < 2:
            continue
        numeric = np.moveaxis(n.reshape(len(n), *shape), k + 1, 0).reshape(size, -1)
        analytic = np.moveaxis(a.reshape(len(n), *shape), k + 1, 0).reshape(size, -1)
        if numeric.shape[1] < 2:
            continue
        square = (numeric * numeric).sum(axis=1)
        c = (analytic * numeric).sum(axis=1) / np.where(square > 0, square, 1)
        if _alike(analytic, c[:, None] * numeric) and (square > 0).sum() > 1:
            shown = ", ".join(f"{x:.4g}" for x in c[:5]) + (", ..." if size > 5 else "")
            yield f"a factor that varies only along axis {k} is missing or extra: {shown}"
            return


def _offset(a: np.ndarray, n: np.ndarray, wrong: np.ndarray, shape: Shape) -> Iterator[str]:
    """analytic - numeric is one number, or one number along an axis."""
    difference = a - n
    if difference.size > 1 and _alike(difference, np.full_like(difference, difference.mean())):
        yield f"a constant is missing or added: analytic = numeric {difference.mean():+.6g}"
        return
    parts = difference.reshape(len(n), *shape)
    for k, size in enumerate(shape):
        if size > 1:
            even = np.broadcast_to(parts.mean(axis=k + 1, keepdims=True), parts.shape)
            if _alike(parts, even):
                what = f"analytic - numeric is the same along axis {k}"
                yield f"{what}: a term that sums or averages over it is missing"
                return


def _left_out(a: np.ndarray, n: np.ndarray, wrong: np.ndarray, shape: Shape) -> Iterator[str]:
    """Some elements right, the others zero: a sum of which only a part arrived."""
    if wrong.all() or np.abs(a[wrong]).max() > ALIKE * np.abs(n).max():
        return
    count = f"{np.count_nonzero(wrong)} of {wrong.size} elements are 0 and the others right"
    yield f"overwritten instead of accumulated (= for +=), or left out: {count}"


def _mask(a: np.ndarray, n: np.ndarray, wrong: np.ndarray, shape: Shape) -> Iterator[str]:
    """The opposite: right where numeric is not zero, and not zero where it is."""
    if wrong.all() or np.abs(n[wrong]).max() > ALIKE * np.abs(n).max():
        return
    count = f"{np.count_nonzero(wrong)} of {wrong.size} elements are not 0 though numeric is"
    yield f"a mask is missing, or too much is passed on: {count}, and the others are right"


def _diagonal(a: np.ndarray, n: np.ndarray, wrong: np.ndarray, shape: Shape) -> Iterator[str]:
    if not n.shape[0] == n.shape[1] > 1:
        return
    apart = [x - np.diag(np.diag(x)) for x in (a, np.where(wrong, n, 0))]
    if not apart[0].any() and apart[1].any():
        yield "analytic is diagonal, numeric is not: the terms that couple elements are missing"


def where_wrong(wrong: np.ndarray, shape: Shape, out_shapes: Sequence[Shape]) -> str:
    """Indices to which all wrong elements are confined: borders, one channel, the first of a
    batch."""
    text = _confined(np.any(wrong, axis=0), shape, "of the input is")
    if len(out_shapes) == 1:
        text += _confined(np.any(wrong, axis=1), out_shapes[0], "of the output is")
    return f"wrong only where {' and '.join(text)}" if text else ""


def _confined(wrong: Any, shape: Shape, what: str) -> list[str]:
    text = []
    for k, size in enumerate(shape):
        others = tuple(j for j in range(len(shape)) if j != k)
        indices = np.flatnonzero(wrong.reshape(shape).any(axis=others))
        if len(indices) <= min(4, size // 2):
            text.append(f"index {k} {what} {' or '.join(map(str, indices))}")
    return text
