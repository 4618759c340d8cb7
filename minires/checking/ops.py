"""The gradient check of every registered operation on its own cases: what `minires gradcheck`
runs."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from .. import functional  # noqa: F401 - registers every operation
from ..kernels.cases import Case
from ..op import OPS, Op
from .check import gradcheck
from .report import GradcheckReport

__all__ = ["case_arrays", "check_case", "check_ops", "op_cases"]


def op_cases(names: Sequence[str] | None = None) -> Iterator[tuple[Op, Case]]:
    """(operation, case) of the named operations, all by default. Raises ValueError on an unknown
    name."""
    for name in names or OPS:
        if name not in OPS:
            close = difflib.get_close_matches(name, OPS, 3)
            hint = f"did you mean {' or '.join(close)}?" if close else f"there are {', '.join(OPS)}"
            raise ValueError(f"gradcheck: no operation is called {name!r}; {hint}")
        op: Any = OPS[name]
        yield from ((op, case) for case in op.cases)


def case_arrays(case: Case, dtype: Any = np.float64, seed: int = 0) -> list[Any]:
    """The inputs of a case, the same ones every time."""
    return case.arrays(np.random.default_rng(seed), dtype)


def check_case(op: Op, case: Case, **options: Any) -> GradcheckReport:
    """`gradcheck` of one operation on one of its cases."""
    return gradcheck(
        lambda *inputs: op(*inputs, **case.params),
        case_arrays(case),
        wrt=case.wrt,
        name=f"{op.name}({case!r})",
        **options,
    )


def check_ops(names: Sequence[str] | None = None, **options: Any) -> list[GradcheckReport]:
    """Check the named operations (all by default) on all their cases; a report each, failed ones
    included.

    options: as `gradcheck` takes them. Raises ValueError on an unknown name, naming the closest.

    >>> [report.passed for report in check_ops(["neg"])]
    [True]
    """
    options = {"raise_exception": False, **options}
    return [check_case(op, case, **options) for op, case in list(op_cases(names))]
