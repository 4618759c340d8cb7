"""What the GPU finds out about a training step, so that nobody has to wait for it: sums of squares
of the gradients, and from them whether the step is taken, and the scale of the loss in fp16.

The sum of squares says all about gradients: squares of float32 do not overflow in float64, so it is
finite if and only if every number is.

In fp16 numbers below 6e-8 are zero, so the loss is multiplied by a scale, and the gradients by its
reciprocal where the optimiser reads them. Where a gradient gets too large, that one step is not
taken and the scale halved; after `patience` steps without it the scale is doubled.

Source: Micikevicius et al., "Mixed precision training", ICLR 2018, section 3.2.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from .cases import Case
from .dispatch import array_module, kernel
from .launch import THREADS, Source, flat_grid
from .memory import empty

__all__ = ["judge_step", "square_sums", "sums_of_all"]

EPS = 1e-6  # PyTorch's, of clipping
SUMMED = 64  # numbers that a GPU thread adds up
LEAST, LARGEST = 2.0**-14, 2.0**40  # of the scale
SOURCE = Source("judge.cu")


def _count(n: int) -> int:
    return -(-n // (SUMMED * THREADS))


@kernel(*(Case((n,)) for n in (1, 36, 2 * SUMMED * THREADS + 4)))
def square_sums(g: Any, out: Any = None) -> Any:
    """The sums of squares of the pieces of g (n,), in float64: (pieces,)."""
    xp, size = array_module(g), SUMMED * THREADS
    squares = xp.zeros((_count(g.size), size))
    squares.reshape(-1)[: g.size] = xp.square(g, dtype=np.float64)
    return squares.sum(axis=1, out=out)


@square_sums.cuda(serves=lambda g, out=None: g.flags.c_contiguous and g.dtype.char in "fd")
def _square_sums_cuda(g: Any, out: Any = None) -> Any:
    grid, block = flat_grid(g.size, SUMMED)
    parts = empty((_count(g.size),), np.float64, like=g) if out is None else out
    SOURCE.launch("sum_squares", grid, block, g, parts, g.size, SUMMED)
    return parts


def sums_of_all(gradients: list[Any]) -> Any:
    """`square_sums` of several vectors, end to end."""
    pieces = [_count(g.size) for g in gradients]
    parts, start = empty((sum(pieces),), np.float64, like=gradients[0]), 0
    for g, count in zip(gradients, pieces, strict=True):
        square_sums(g, parts[start : start + count])
        start += count
    return parts


def _filled(*values: float, shape: tuple[int, ...] = (), dtype: Any = np.float64) -> Any:
    """A case input: these numbers, or one of them everywhere."""
    numbers = np.array(values, dtype)
    numbers = numbers if numbers.size > 1 else np.full(shape, numbers[0])
    make = lambda rng, kind: numbers.copy()  # noqa: E731
    make.__name__ = f"filled{values}"
    return make


def _case(before: float, parts: int, most: float, *scale: float) -> Case:
    """A step of 5 images; before: the first bad step; scale: what it was, and the good steps."""
    state, sums = _filled(0, 5, 3, 0, 0, 7, before, 0), _filled(0.3, shape=(parts,))
    hits = _filled(1, shape=(5,), dtype=np.uint8)
    of_scale = _filled(1, 1, *scale) if scale else None
    return Case(state, sums, (), hits, of_scale, most=most, patience=3)


@kernel(
    *(_case(0, 3, 0.1), _case(0, 300, 1e9), _case(2, 3, 1.0), _case(0, 3, 0.1, 8.0, 0)),
    *(_case(0, 3, 1e9, 8.0, 2), _case(0, 3, 1e9, LARGEST, 2), _case(3, 2, 1.0, 8.0, 1)),
    Case(_filled(0, shape=(8,)), _filled(2.0, shape=(9,)), most=0.5),
)
def judge_step(
    state: Any,
    parts: Any,
    loss: Any = None,
    hits: Any = None,
    scale: Any = None,
    *,
    most: float,
    patience: int = 2000,
) -> Any:
    """Write down what a training step measured: `state` (8,), float64, which is returned.

        0  what gradients are to be multiplied by so that their norm is at most `most`; negative:
           nothing is to change. So it is once a loss or a norm was NaN or infinite
        1  the sum of the losses of all images so far         2  the right answers among them
        3  the mean loss of this batch                        4  the norm of its gradients
        5  the number of steps so far                         6  the first bad one of them, or 0
        7  the sum of the norms of the good ones

    parts: the sum of the gradients' squares, in parts; loss (): the mean of the batch; hits (n,)
    uint8: 1 for a right answer.

    scale (4,), float64, is also brought up to date. With it, gradients that are not finite make a
    step bad only when the scale cannot get smaller; else just this one is not taken.

        0  as above, for gradients with the scale in them     1  whether the step is taken: 1 or 0
        2  the scale of the next loss, a power of two         3  steps taken since it changed
    """
    value, by = 0.0 if loss is None else float(loss), 1.0 if scale is None else float(scale[2])
    norm = float(parts.sum()) ** 0.5 / by
    finite = bool(np.isfinite(norm))
    state[3:5] = value, norm
    state[5] += 1
    lost = not finite and (scale is None or by <= LEAST)
    if state[6] == 0 and (lost or not np.isfinite(value)):
        state[6] = state[5]
    taken = finite and state[6] == 0
    state[0] = min(1.0, most / (norm + EPS)) / by if taken else -1
    if scale is not None:
        good = float(scale[3]) + 1 if finite else 0.0
        larger = min(2 * by, LARGEST) if good >= patience else by
        scale[:2] = state[0], taken
        scale[2:] = larger if finite else max(by / 2, LEAST), good if good < patience else 0
    if state[6] == 0:
        rows = 0 if hits is None else hits.size
        state[1] += value * rows
        state[2] += 0 if hits is None else hits.sum()
        state[7] += norm if finite else 0
    return state


@judge_step.cuda()
def _judge_step_cuda(
    state: Any,
    parts: Any,
    loss: Any = None,
    hits: Any = None,
    scale: Any = None,
    *,
    most: float,
    patience: int = 2000,
) -> Any:
    if loss is None:  # the kernel's type is that of the loss
        loss = parts[:1].astype(np.float32)
        loss.fill(0)
    rows = 0 if hits is None else hits.size
    SOURCE.launch(
        *("judge", (1,), (THREADS,), state, parts, parts.size, loss, hits, rows, most, scale),
        *(LEAST, LARGEST, patience),
    )
    return state
