"""One random generator for everything: Philox 4x32-10, counter-based.

A draw is a pure function of (seed, stream, step, index): no hidden state, no dependence on threads
or on what was drawn before, and the same bits from NumPy, Numba and CUDA. The 64-bit seed is
Philox's key; the 128-bit counter holds (index // 4, stream, step); each block gives four 32-bit
words, so word `i` of a draw is word `i % 4` of block `i // 4`.

Source: Salmon, Moraes, Dror and Shaw, "Parallel random numbers: as easy as 1, 2, 3", SC 2011.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numba
import numpy as np

from .cases import Case
from .dispatch import array_module, kernel
from .launch import Source, flat_grid, from_memory

__all__ = ["Key", "bits", "integers", "normal", "permutation", "philox", "random_bits", "uniform"]

M0, M1 = 0xD2511F53, 0xCD9E8D57  # the multipliers of the paper's table 2
W0, W1 = 0x9E3779B9, 0xBB67AE85  # the key increments: golden ratio, sqrt(3) - 1
MASK = 0xFFFFFFFF
ROUNDS = 10
SOURCE = Source("random.cu")


class Key(NamedTuple):
    """Names one draw. Use another stream for another purpose, another step for another time.

    For draws on the GPU the step may also be an array there, of one uint64.
    """

    seed: int
    stream: int = 0
    step: int = 0


@kernel(Case(lambda rng, dtype: np.zeros(37, np.uint32), seed=7, stream=3, step=2**33 + 1))
def random_bits(out: Any, *, seed: int, stream: int, step: int) -> Any:
    """Fill the uint32 array `out` (n,) with the words 0 … n - 1 of a draw, and return it."""
    blocks = -(-out.size // 4)
    c0 = np.arange(blocks, dtype=np.uint64)
    c1 = np.full(blocks, stream & MASK, np.uint64)
    c2 = np.full(blocks, step & MASK, np.uint64)
    c3 = np.full(blocks, step >> 32 & MASK, np.uint64)
    k0, k1 = seed & MASK, seed >> 32 & MASK
    for _ in range(ROUNDS):
        p0, p1 = c0 * np.uint64(M0), c2 * np.uint64(M1)  # 32 x 32 -> 64 bits
        c0, c1 = (p1 >> np.uint64(32)) ^ c1 ^ np.uint64(k0), p1 & np.uint64(MASK)
        c2, c3 = (p0 >> np.uint64(32)) ^ c3 ^ np.uint64(k1), p0 & np.uint64(MASK)
        k0, k1 = (k0 + W0) & MASK, (k1 + W1) & MASK
    words = np.stack([c0, c1, c2, c3], axis=1).astype(np.uint32).ravel()
    out[:] = array_module(out).asarray(words[: out.size])
    return out


@numba.njit(cache=True, inline="never")
def philox(seed, stream, step, block):
    """The four 32-bit words of one block, as a tuple of uint64. For use inside other kernels."""
    mask, shift = np.uint64(MASK), np.uint64(32)
    c0, c1 = np.uint64(block) & mask, np.uint64(stream) & mask
    c2, c3 = np.uint64(step) & mask, np.uint64(step) >> shift
    k0, k1 = np.uint64(seed) & mask, np.uint64(seed) >> shift
    for _ in range(ROUNDS):
        p0, p1 = c0 * np.uint64(M0), c2 * np.uint64(M1)
        c0, c1 = (p1 >> shift) ^ c1 ^ k0, p1 & mask
        c2, c3 = (p0 >> shift) ^ c3 ^ k1, p0 & mask
        k0, k1 = (k0 + np.uint64(W0)) & mask, (k1 + np.uint64(W1)) & mask
    return c0, c1, c2, c3


@random_bits.cpu(serves=lambda out, **_: out.flags.c_contiguous)
def _random_bits_cpu(out: np.ndarray, *, seed: int, stream: int, step: int) -> np.ndarray:
    _fill(out, np.uint64(seed), np.uint64(stream), np.uint64(step))
    return out


@random_bits.cuda(serves=lambda out, **_: out.dtype == np.uint32 and out.flags.c_contiguous)
def _random_bits_cuda(out: Any, *, seed: int, stream: int, step: Any) -> Any:
    grid, block = flat_grid(-(-out.size // 4))
    SOURCE.launch("random_bits", grid, block, out, out.size, seed, stream, *from_memory(step))
    return out


@numba.njit(cache=True, nogil=True)
def _fill(out, seed, stream, step):
    for block in range((out.size + 3) // 4):
        words = philox(seed, stream, step, block)
        for lane in range(min(4, out.size - 4 * block)):
            out[4 * block + lane] = words[lane]


def bits(key: Key, count: int) -> np.ndarray:
    """`count` random 32-bit words.

    >>> bits(Key(seed=0), 2)
    array([1713891541, 3781805453], dtype=uint32)
    """
    return random_bits(np.empty(count, np.uint32), seed=key.seed, stream=key.stream, step=key.step)


def uniform(key: Key, shape: tuple[int, ...] = (), dtype: Any = np.float32) -> np.ndarray:
    """Numbers in [0, 1): 24 random bits each, exact in float32, so every dtype gets the same
    ones.
    """
    words = bits(key, math.prod(shape))
    return ((words >> np.uint32(8)).astype(dtype) * np.dtype(dtype).type(2**-24)).reshape(shape)


def normal(key: Key, shape: tuple[int, ...] = (), dtype: Any = np.float32) -> np.ndarray:
    """Standard normal numbers by the transform of Box and Muller (1958), computed in float64."""
    count = math.prod(shape)
    u, v = uniform(key, (2, count), np.float64)
    return (np.sqrt(-2 * np.log1p(-u)) * np.cos(2 * np.pi * v)).astype(dtype).reshape(shape)


def integers(key: Key, shape: tuple[int, ...], high: int) -> np.ndarray:
    """Integers in 0 … high - 1 (high at most 2^32): the upper half of word x high."""
    words = bits(key, math.prod(shape)).astype(np.uint64)
    return ((words * np.uint64(high)) >> np.uint64(32)).astype(np.int64).reshape(shape)


def permutation(key: Key, count: int) -> np.ndarray:
    """A random order of 0 … count - 1, by sorting 64-bit words."""
    return np.argsort(bits(key, 2 * count).view(np.uint64), kind="stable")
