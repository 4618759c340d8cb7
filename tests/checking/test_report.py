"""What `gradcheck` says: errors, the rule by which an element passes, reports and their table."""

from __future__ import annotations

import numpy as np
import pytest

import minires as mr
import minires.functional as F
from minires import gradcheck
from minires.checking import GradcheckError, GradcheckReport, check_ops, format_table
from tests.checking.common import MODES, X, failure

__all__: list[str] = []


def test_errors_name_what_is_wrong():
    identity = (lambda x: x.copy(), lambda g, x: g)
    assert "nothing to differentiate" in failure(F.exp, [np.arange(3)])
    assert "input 0 holds NaN" in failure(F.exp, [np.array([np.nan])])
    assert "output 0 is nan at (1,)" in failure(F.log, [np.array([1.0, -1.0])])
    assert "returned ndarray where a Tensor" in failure(lambda x: x.numpy(), [X])
    assert "output 0 is float32" in failure(lambda x: x.to(np.float32), [X])
    assert "no real-valued output" in failure((lambda x: x > 0, lambda g, x: g), [X])
    assert "a pair (forward, vjp)" in failure((np.sin,), [X])
    assert "got int" in failure(3, [X])
    assert "has no params" in failure(identity, [X], params=[])
    assert "params holds int" in failure(F.exp, [X], params=[1])
    assert "complex128" in failure(F.exp, [X + 1j])
    with pytest.raises(ValueError, match="mode is 'some'"):
        gradcheck(identity, [X], mode="some")
    with pytest.raises(ZeroDivisionError):  # what the function raises is not hidden
        gradcheck(lambda x: 1 / 0, [X])


def test_the_edge_of_a_domain_is_named():
    text = failure((np.sqrt, lambda g, x: g / np.sqrt(x + 1)), [np.array([0.0, 1.0])])
    assert "move it off the edge of the domain" in text


# The rule and the report


@MODES
def test_the_tolerance_is_the_rule(mode):
    def pair(error):
        return lambda x: 3 * x, lambda g, x: 3 * g * (1 + error)

    x = np.array([0.3])
    assert gradcheck(pair(0.9e-6), [x], mode=mode)
    assert not gradcheck(pair(1.1e-6), [x], mode=mode, raise_exception=False)
    assert gradcheck(pair(1e-4), [x], mode=mode, rtol=1e-3)

    def two(error):
        return lambda x: x * [1, 1e-3], lambda g, x: g * [1, 1e-3 + error]

    x = np.array([0.3, 0.7])
    assert gradcheck(two(0), [x], mode="full")
    assert not gradcheck(two(2e-8), [x], mode="full", raise_exception=False)
    assert gradcheck(two(0.9e-8), [x], mode="full")


def test_a_zero_gradient_passes_on_rounding():
    assert gradcheck(lambda x: F.softmax(x).sum(axis=1), [X])


def test_report():
    report = gradcheck((np.sin, lambda g, x: 2 * g * np.cos(x)), [X], raise_exception=False)
    assert isinstance(report, GradcheckReport)
    assert not report
    assert (report.name, report.mode, report.checked) == ("sin", "full", 144)
    assert report.worst is not None
    assert report.worst.analytic == pytest.approx(2 * report.worst.numeric)
    assert report.max_error == pytest.approx(0.5, rel=0.02)
    assert "FAILED" in str(report)
    assert report.seconds > 0
    with pytest.raises(GradcheckError) as caught:
        gradcheck((np.sin, lambda g, x: 2 * g * np.cos(x)), [X], name="mine")
    assert caught.value.report is not None
    assert str(caught.value).startswith("gradcheck mine: FAILED")
    assert isinstance(caught.value, AssertionError)


def test_operations_by_name_and_their_table():
    reports = check_ops(["relu", "linear"])
    assert all(reports)
    lines = format_table(reports).splitlines()
    assert len(lines) == len(reports) + 2
    assert lines[1].startswith("relu(away_from(0,(2,3)))")
    assert lines[-1] == f"{len(reports)} of {len(reports)} passed"
    assert max(map(len, lines)) <= 110
    wrong = gradcheck((np.sin, lambda g, x: -g), [X], name="w" * 70, raise_exception=False)
    text = format_table([*reports, wrong])
    assert f"\n{'w' * 57}...  FAILED      144" in text
    assert f"{len(reports)} of {len(reports) + 1} passed\n\ngradcheck ww" in text
    with pytest.raises(ValueError, match="no operation is called 'relo'; did you mean relu"):
        check_ops(["relo"])
    with pytest.raises(ValueError, match="there are add, "):
        check_ops(["zzzzzz"])


def test_the_name_is_a_function_and_the_package_another():
    import minires.checking

    assert callable(mr.gradcheck)
    assert mr.gradcheck is minires.checking.gradcheck
