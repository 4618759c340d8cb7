"""Optimiser steps: one pass over a flat buffer that holds every parameter of a group.

A step reads and writes each number once, so memory bandwidth is its only cost: written as array
code, SGD with momentum and weight decay would pass over memory five times. The twins do the same
arithmetic in the same order as the references, element by element, so they agree to the last bit
whatever the number of threads. Chunks are of fixed size for the same reason: the partial sums of
`squared_norm` do not depend on who adds them up.

On the GPU, the learning rate and the number of the step may also be arrays there, of one float64
and one int64: a recorded step that is replayed reads what they hold by then. So may `factor`, a
float64 by which gradients are multiplied; where it is negative, nothing changes.

All buffers are one-dimensional, contiguous and of one dtype; w and the state are updated in place.
"""

from __future__ import annotations

from typing import Any

import numba
import numpy as np

from .cases import Case, positive
from .dispatch import array_module, kernel
from .launch import Source, flat_grid, from_memory

__all__ = ["adam_step", "sgd_step", "squared_norm"]

CHUNK = 1 << 14  # elements a task: 64 KiB of float32, which stays in the second-level cache
EACH = 16  # elements a GPU thread
SOURCE = Source("optim.cu")

SIZES = (1, 36, CHUNK - 1, 2 * CHUNK + 4)


def _sgd_case(n: int, m: bool = True, **changes: Any) -> Case:
    params: dict[str, Any] = {"lr": 0.1, "momentum": 0.9, "dampening": 0.0, "weight_decay": 5e-4}
    params |= {"nesterov": n % 2 > 0, "first": False} | changes
    return Case((n,), (n,), (n,) if m else None, **params)


def _adam_case(n: int, **changes: Any) -> Case:
    params: dict[str, Any] = {
        "lr": 1e-3,
        "beta1": 0.9,
        "beta2": 0.999,
        "eps": 1e-8,
        "weight_decay": 1e-2,
    }
    params |= {"step": 3, "decoupled": n % 2 > 0} | changes
    return Case((n,), (n,), (n,), positive(n), **params)


def _flat(*arrays: Any, factor: Any = None, **_: Any) -> bool:
    """Whether the twins take these: contiguous vectors of one floating-point dtype."""
    if factor is not None and isinstance(arrays[0], np.ndarray):
        return False
    given = [a for a in arrays if a is not None]
    dtype = given[0].dtype
    return dtype in (np.float32, np.float64) and all(
        a.ndim == 1 and a.flags.c_contiguous and a.dtype == dtype for a in given
    )


@kernel(
    *map(_sgd_case, SIZES),
    _sgd_case(37, first=True),
    _sgd_case(37, dampening=0.5, nesterov=False),
    _sgd_case(37, momentum=0.0, nesterov=False, m=False),
)
def sgd_step(
    w: Any,
    g: Any,
    m: Any,
    *,
    lr: float,
    momentum: float,
    dampening: float,
    nesterov: bool,
    weight_decay: float,
    first: Any,
    factor: Any = None,
) -> tuple[Any, ...]:
    """Stochastic gradient descent, with the momentum buffer m. Returns the buffers written.

        d = g + weight_decay w
        m = momentum m + (1 - dampening) d     (at the first step m = d: m need not be initialised)
        d = d + momentum m if nesterov else m
        w = w - lr d

    w, g, m (n,); m is None without momentum. first: a bool, or on the GPU an array with the number
    of the step, from 1.
    Source: Sutskever et al., "On the importance of initialization and momentum", ICML 2013, in
    PyTorch's form.
    """
    buffers = (w,) if m is None else (w, m)
    if factor is not None:
        if factor < 0:
            return buffers
        g = g * factor.astype(g.dtype)
    d = g + weight_decay * w
    if m is not None:
        m[...] = d if first else momentum * m + (1 - dampening) * d
        d = d + momentum * m if nesterov else m
    w -= lr * d
    return buffers


@sgd_step.cpu(serves=_flat)
def _sgd_step_cpu(w, g, m, *, lr, momentum, dampening, nesterov, weight_decay, first, factor=None):
    number = w.dtype.type  # a Python float would make the arithmetic float64
    if m is None:
        _sgd(w, g, number(lr), number(weight_decay))
        return (w,)
    lr, weight_decay, momentum = number(lr), number(weight_decay), number(momentum)
    take = number(1 - dampening)
    _sgd_momentum(w, g, m, lr, weight_decay, momentum, take, bool(nesterov), bool(first))
    return w, m


@sgd_step.cuda(serves=_flat)
def _sgd_step_cuda(w, g, m, *, lr, momentum, dampening, nesterov, weight_decay, first, factor=None):
    step = (None, 2 - first) if isinstance(first, bool | np.bool_) else (first, 0)
    SOURCE.launch(
        *("sgd", *flat_grid(w.size, EACH), w, g, m, w.size, EACH, *from_memory(lr)),
        *(weight_decay, momentum, 1 - dampening, bool(nesterov), *step, factor),
    )
    return (w,) if m is None else (w, m)


# A chunk's loop is a function of its own: inside `prange`, LLVM would not make vectors of it.


@numba.njit(nogil=True)
def _sgd_chunk(w, g, lr, weight_decay):
    for i in range(w.size):
        w[i] -= lr * (g[i] + weight_decay * w[i])


@numba.njit(nogil=True)
def _sgd_momentum_chunk(w, g, m, lr, weight_decay, momentum, take, nesterov, first):
    for i in range(w.size):
        d = g[i] + weight_decay * w[i]
        v = d if first else momentum * m[i] + take * d
        m[i] = v
        w[i] -= lr * (d + momentum * v if nesterov else v)


@numba.njit(cache=True, parallel=True, nogil=True)
def _sgd(w, g, lr, weight_decay):
    for chunk in numba.prange((w.size + CHUNK - 1) // CHUNK):
        part = slice(chunk * CHUNK, (chunk + 1) * CHUNK)
        _sgd_chunk(w[part], g[part], lr, weight_decay)


@numba.njit(cache=True, parallel=True, nogil=True)
def _sgd_momentum(w, g, m, lr, weight_decay, momentum, take, nesterov, first):
    for chunk in numba.prange((w.size + CHUNK - 1) // CHUNK):
        part = slice(chunk * CHUNK, (chunk + 1) * CHUNK)
        options = lr, weight_decay, momentum, take, nesterov, first
        _sgd_momentum_chunk(w[part], g[part], m[part], *options)


@kernel(*map(_adam_case, SIZES), _adam_case(37, step=1, weight_decay=0.0, decoupled=False))
def adam_step(
    w: Any,
    g: Any,
    m: Any,
    v: Any,
    *,
    step: int,
    lr: float,
    beta1: float,
    beta2: float,
    eps: float,
    weight_decay: float,
    decoupled: bool,
    factor: Any = None,
) -> tuple[Any, ...]:
    """Adam, or AdamW when `decoupled`. `step` counts from 1; m and v start at zero. Returns (w, m,
    v).

        g = g + weight_decay w            or, decoupled,  w = w - lr weight_decay w
        m = m + (1 - beta1) (g - m)       v = beta2 v + (1 - beta2) g²
        w -= lr m / (1 - beta1^step) / (√v / √(1 - beta2^step) + eps)

    w, g, m, v (n,).
    Source: Kingma and Ba, "Adam", ICLR 2015, algorithm 1; Loshchilov and Hutter, "Decoupled weight
    decay regularization", ICLR 2019, algorithm 2.
    """
    if factor is not None:
        if factor < 0:
            return w, m, v
        g = g * factor.astype(g.dtype)
    if decoupled:
        w *= 1 - lr * weight_decay
    else:
        g = g + weight_decay * w
    m += (1 - beta1) * (g - m)
    v[...] = beta2 * v + (1 - beta2) * g * g
    rate, scale = _corrections(step, lr, beta1, beta2)
    w -= rate * m / (array_module(w).sqrt(v) / scale + eps)
    return w, m, v


def _corrections(step: int, lr: float, beta1: float, beta2: float) -> tuple[float, float]:
    """The step size and the divisor of √v that make up for starting at zero."""
    return lr / (1 - beta1**step), (1 - beta2**step) ** 0.5


@adam_step.cpu(serves=_flat)
def _adam_step_cpu(
    w, g, m, v, *, step, lr, beta1, beta2, eps, weight_decay, decoupled, factor=None
):
    rate, scale = _corrections(step, lr, beta1, beta2)
    shrink, decay = (1 - lr * weight_decay, 0.0) if decoupled else (1.0, weight_decay)
    scalars = (rate, scale, beta2, 1 - beta1, 1 - beta2, eps, shrink, decay)
    _adam(w, g, m, v, *[w.dtype.type(s) for s in scalars])
    return w, m, v


@adam_step.cuda(serves=_flat)
def _adam_step_cuda(
    w, g, m, v, *, step, lr, beta1, beta2, eps, weight_decay, decoupled, factor=None
):
    SOURCE.launch(
        *("adam", *flat_grid(w.size, EACH), w, g, m, v, w.size, EACH, *from_memory(lr)),
        *(*from_memory(step), beta1, beta2, eps, weight_decay, bool(decoupled), factor),
    )
    return w, m, v


@numba.njit(nogil=True)
def _adam_chunk(w, g, m, v, rate, scale, beta2, take1, take2, eps, shrink, decay):
    for i in range(w.size):
        d = g[i] + decay * w[i]
        m[i] += take1 * (d - m[i])
        v[i] = beta2 * v[i] + take2 * d * d
        w[i] = shrink * w[i] - rate * m[i] / (np.sqrt(v[i]) / scale + eps)


@numba.njit(cache=True, parallel=True, nogil=True)
def _adam(w, g, m, v, rate, scale, beta2, take1, take2, eps, shrink, decay):
    for chunk in numba.prange((w.size + CHUNK - 1) // CHUNK):
        part = slice(chunk * CHUNK, (chunk + 1) * CHUNK)
        options = rate, scale, beta2, take1, take2, eps, shrink, decay
        _adam_chunk(w[part], g[part], m[part], v[part], *options)


@kernel(*(Case((n,)) for n in SIZES))
def squared_norm(g: Any) -> float:
    """The sum of squares of g (n,), added up in float64."""
    return float(array_module(g).square(g, dtype=np.float64).sum())


@squared_norm.cpu(serves=_flat)
def _squared_norm_cpu(g):
    if g.size <= CHUNK:  # waking the threads would take longer
        return float(_squares(g, 0, g.size))
    partial = np.empty(-(-g.size // CHUNK))
    _partial_squares(g, partial)
    return float(partial.sum())


@numba.njit(cache=True, nogil=True, fastmath={"reassoc"})  # several sums at once, in vector lanes
def _squares(g, start, stop):
    total = 0.0
    for i in range(start, stop):
        total += np.float64(g[i]) * np.float64(g[i])
    return total


@numba.njit(cache=True, parallel=True, nogil=True)
def _partial_squares(g, partial):
    for chunk in numba.prange(partial.size):
        partial[chunk] = _squares(g, chunk * CHUNK, min((chunk + 1) * CHUNK, g.size))
