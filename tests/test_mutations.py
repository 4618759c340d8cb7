"""Bugs planted in copies of operations and kernels: the gradient checker catches every one.

A mutation replaces text that must occur exactly once in a module's source, so it cannot silently
vanish when the source changes: then this file says which text to look up. The mutated module and
those between it and the operation are compiled anew, beside the real ones; `test_copies_pass` shows
that such copies are right without a mutation.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from types import ModuleType

import pytest

from minires.checking.ops import check_case
from minires.kernels.dispatch import KERNELS, reference
from minires.kernels.memory import set_threads, threads
from minires.op import OPS, Op
from tests.mutations import IM2COL, MUTATIONS, Mutation

__all__: list[str] = []

# what the checker must say of bugs of these kinds
TOLD = {
    "= for +=": "overwritten instead of accumulated (= for +=)",
    "sign": "the sign is flipped",
    "mask left out": "a mask is missing",
}


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """The arrays are tiny."""
    before = threads()
    set_threads(1)
    yield
    set_threads(before)


@contextmanager
def copied(path: tuple[str, ...], old: str = "", new: str = "") -> Iterator[ModuleType]:
    """The last module of `path`, compiled from a copy of its source on top of the others' copies.

    The first has `old` replaced. Nothing outside changes: not sys.modules, not the packages'
    attributes, not the registries.
    """
    names = [f"minires.{name}" for name in path]
    packages = [sys.modules[name.rpartition(".")[0]] for name in names]
    real = [sys.modules[name] for name in names]
    # `functional.dropout` is the module's name and, once imported, the operation's
    bound = [getattr(p, n.rpartition(".")[2]) for p, n in zip(packages, names, strict=True)]
    registries: list[tuple[dict, dict]] = [(r, dict(r)) for r in (OPS, KERNELS)]
    try:
        for name, package, module in zip(names, packages, real, strict=True):
            assert module.__file__
            text = Path(module.__file__).read_text()
            if old and name == names[0]:
                assert text.count(old) == 1, f"{name} has {old!r} {text.count(old)} times, not once"
                text = text.replace(old, new)
            # compiled code of a mutant must neither come from the cache nor get into it
            text = text.replace("cache=True", "cache=False")
            text = text.replace("parallel=True", "parallel=False")  # compiles faster
            code = compile(text, f"<copy of {name}>", "exec", dont_inherit=True)
            copy = ModuleType(name)
            copy.__package__, copy.__file__ = package.__name__, module.__file__
            sys.modules[name] = copy
            setattr(package, name.rpartition(".")[2], copy)
            exec(code, copy.__dict__)
        yield copy
    finally:
        for name, package, module, value in zip(names, packages, real, bound, strict=True):
            sys.modules[name] = module
            setattr(package, name.rpartition(".")[2], value)
        for registry, before in registries:
            registry.clear()
            registry.update(before)


def failures(op: Op, twin: bool) -> list[str]:
    """What the checker says about the cases that fail, with the kernels' twins or references."""
    with nullcontext() if twin else reference():
        reports = [check_case(op, case, raise_exception=False) for case in op.cases]
    return [str(report) for report in reports if not report]


@pytest.mark.parametrize("m", MUTATIONS, ids=lambda m: f"{m.op}: {m.bug}")
def test_every_planted_bug_is_caught(m: Mutation):
    with copied(m.path, m.old, m.new) as module:
        found = failures(getattr(module, m.op), m.twin)
    assert found, f"nobody noticed: {m.bug} in {m.path[0]}"
    assert "analytic" in found[0]
    for word, told in TOLD.items():
        assert word not in m.bug or told in found[0]


@pytest.mark.parametrize(
    ("op", "path", "twin"), sorted({(m.op, m.path, m.twin) for m in MUTATIONS})
)
def test_copies_pass(op: str, path: tuple[str, ...], twin: bool):
    real = OPS[op]
    with copied(path) as module:
        assert getattr(module, op) is not real
        assert not failures(getattr(module, op), twin)


def test_enough_bugs_and_nothing_left_behind():
    assert len(MUTATIONS) >= 20
    assert len({(m.op, m.path, m.old, m.new) for m in MUTATIONS}) == len(MUTATIONS)
    im2col = sys.modules["minires.kernels.im2col"]
    before = dict(OPS), dict(KERNELS)
    with copied(IM2COL):
        assert sys.modules["minires.kernels.im2col"] is not im2col
        assert dict(OPS) != before[0]
    assert (dict(OPS), dict(KERNELS)) == before
    assert sys.modules["minires.kernels.im2col"] is im2col
