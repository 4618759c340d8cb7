"""The vector instructions that the CPU kernels are built for, and the tile sizes that fit them.

`ISA` is found once, at import, from the CPU's features; the environment variable MINIRES_ISA holds
it down (`avx2` on a machine with AVX-512, `plain` anywhere). `plain` has no vectors of its own:
kernels written as vector code then serve nothing, and convolutions are products of a BLAS.

A product tile keeps rows x vectors accumulators in registers. It must leave room for one row of the
right-hand matrix and one broadcast number: 24 + 4 + 1 of AVX-512's 32 registers, 12 + 2 + 1 of
AVX2's 16. And it must have at least 8 accumulators, because a fused multiply-add takes 4 cycles and
two can start in each.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any, NamedTuple

import numba
from llvmlite import binding as llvm

__all__ = ["ISA", "SETS", "InstructionSet", "best_set", "choose_set", "features_within"]


class InstructionSet(NamedTuple):
    """One kind of vectors. `rows[v - 1]` and `short_rows[v - 1]` are the rows of a product tile
    that is v vectors wide.

    `rows` is for tall matrices, whose row counts are padded up; `short_rows` divides `channels`,
    the multiple to which channel counts are padded.
    """

    name: str
    width: int  # float32 numbers in a vector
    rows: tuple[int, ...] = ()
    short_rows: tuple[int, ...] = ()
    channels: int = 1
    needs: tuple[str, ...] = ()  # LLVM's names of the features

    @property
    def block(self) -> int:
        """Columns of the widest product tile."""
        return self.width * len(self.rows)


# the first that the CPU has is the best
SETS = {
    s.name: s
    for s in (
        InstructionSet(
            "avx512", 16, (12, 12, 6, 6), (16, 8, 4, 4), 16, ("avx512f", "avx512vl", "avx512dq")
        ),
        InstructionSet("avx2", 8, (12, 6), (8, 4), 8, ("avx2", "fma")),
        InstructionSet("neon", 4, (12, 12, 6, 6), (8, 8, 4, 4), 8, ("neon",)),
        InstructionSet("plain", 0),
    )
}

# what each set must not have: the names of features begin so (f16c and the like imply avx)
BEYOND = {
    "avx2": ("avx512", "avx10"),
    "plain": ("avx", "fma", "f16c", "vaes", "vpclmul", "xop", "sha512", "sm3", "sm4"),
}


def best_set(features: Mapping[str, bool], can_compile: bool = True) -> InstructionSet:
    """The first of SETS of which the CPU has everything; `plain` when nothing is compiled.

    >>> best_set({"avx2": True, "fma": True}).name
    'avx2'
    """
    if not can_compile:
        return SETS["plain"]
    return next(s for s in SETS.values() if all(features.get(name) for name in s.needs))


def choose_set(best: InstructionSet, wanted: str | None) -> InstructionSet:
    """`best`, or the set named `wanted` if the machine has it too.

    >>> choose_set(SETS["avx512"], "avx2").name
    'avx2'
    """
    if not wanted:
        return best
    names = list(SETS)
    within = ["plain"] if best.name == "plain" else names[names.index(best.name) :]
    if best.name != "neon":
        within = [name for name in within if name != "neon"]
    if wanted not in within:
        raise ValueError(f"MINIRES_ISA: {wanted!r} must be one of {', '.join(within)} here")
    return SETS[wanted]


def features_within(features: Mapping[str, bool], isa: InstructionSet) -> str:
    """The CPU's features, without those of wider vectors than `isa` has, as LLVM reads them.

    >>> features_within({"avx2": True, "avx512f": True}, SETS["avx2"])
    '+avx2,-avx512f'
    """
    beyond = BEYOND.get(isa.name, ("?",))
    have = {name: on and not name.startswith(beyond) for name, on in features.items()}
    return ",".join(f"{'+' if on else '-'}{name}" for name, on in sorted(have.items()))


def _detect() -> InstructionSet:
    features = dict(llvm.get_host_cpu_features())
    config: Any = numba.config  # type: ignore[attr-defined]
    best = best_set(features, not config.DISABLE_JIT)
    isa = choose_set(best, os.environ.get("MINIRES_ISA"))
    if isa is not best and config.CPU_FEATURES is None:
        # loops that LLVM vectorises by itself are held down as well
        config.CPU_FEATURES = features_within(features, isa)
    return isa


ISA = _detect()
