"""The gradient checker, for the tests of minires and of anyone else.

Not called `gradcheck`, because `minires.gradcheck` is the function.
"""

from .check import gradcheck
from .ops import check_case, check_ops, op_cases
from .report import Element, GradcheckError, GradcheckReport, Kink, format_table

__all__ = [
    "Element",
    "GradcheckError",
    "GradcheckReport",
    "Kink",
    "check_case",
    "check_ops",
    "format_table",
    "gradcheck",
    "op_cases",
]
