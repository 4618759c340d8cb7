"""The instruction set: found from features, held down by MINIRES_ISA, and the tile sizes."""

from __future__ import annotations

import subprocess
import sys

import pytest

from minires.kernels.isa import ISA, SETS, best_set, choose_set, features_within

__all__: list[str] = []

AVX512 = dict.fromkeys(["avx512f", "avx512vl", "avx512dq", "avx2", "fma", "sse2"], True)


@pytest.mark.parametrize(
    ("features", "name"),
    [
        (AVX512, "avx512"),
        ({**AVX512, "avx512vl": False}, "avx2"),
        ({"avx2": True, "fma": False}, "plain"),
        ({"neon": True}, "neon"),
        ({}, "plain"),
    ],
)
def test_the_best_set_is_one_that_the_cpu_has(features, name):
    assert best_set(features).name == name
    assert best_set(features, can_compile=False).name == "plain"


def test_the_environment_holds_it_down_but_not_up():
    assert choose_set(SETS["avx512"], None) is SETS["avx512"]
    assert choose_set(SETS["avx512"], "plain") is SETS["plain"]
    assert choose_set(SETS["neon"], "plain") is SETS["plain"]
    for best, wanted, allowed in (
        ("avx2", "avx512", "avx2, plain"),
        ("avx512", "neon", "avx512, avx2, plain"),
        ("neon", "avx2", "neon, plain"),
        ("plain", "fast", "plain"),
    ):
        with pytest.raises(ValueError, match=f"'{wanted}' must be one of {allowed} here"):
            choose_set(SETS[best], wanted)


def test_what_is_compiled_is_held_down_too():
    assert features_within(AVX512, SETS["avx2"]).count("-avx512") == 3
    assert features_within(AVX512, SETS["plain"]).count("+") == 1
    assert "-" not in features_within(AVX512, SETS["avx512"])


@pytest.mark.parametrize("isa", SETS.values(), ids=lambda s: s.name)
def test_tiles_fit_the_padding(isa):
    assert all(12 % rows == 0 for rows in isa.rows)
    assert all(isa.channels % rows == 0 for rows in isa.short_rows)
    assert isa.width == 0 or isa.channels % isa.width == 0
    registers = 16 if isa.name == "avx2" else 32
    for rows in (isa.rows, isa.short_rows):
        assert len(rows) == len(isa.rows)
        assert all(r * v + v + 1 <= registers for v, r in enumerate(rows, 1))


def test_a_wrong_name_is_an_error_at_import(child_env):
    child = subprocess.run(
        [sys.executable, "-c", "import minires.kernels"],
        env={**child_env, "MINIRES_ISA": "mmx"},
        capture_output=True,
        text=True,
    )
    assert child.returncode == 1
    assert "ValueError: MINIRES_ISA: 'mmx' must be one of" in child.stderr


def test_nothing_compiled_means_plain(child_env):
    code = "from minires.kernels.isa import ISA; print(ISA.name)"
    child = subprocess.run(
        [sys.executable, "-c", code],
        env={**child_env, "NUMBA_DISABLE_JIT": "1", "MINIRES_ISA": ""},
        capture_output=True,
        text=True,
    )
    assert child.stdout == "plain\n", child.stderr


def test_this_machine_has_a_set():
    assert ISA in SETS.values()
