"""`gradcheck`: compare gradients with numerical derivatives, in float64, and say what is wrong."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from typing import Any, Literal

import numpy as np

from ..errors import DTypeError
from ..kernels.memory import set_threads, threads
from .directions import check_directions
from .full import check_full
from .report import GradcheckError, GradcheckReport
from .settings import Settings
from .subject import PairSubject, Subject, TensorSubject

__all__ = ["gradcheck"]

FULL_UP_TO = 2000  # elements of inputs and outputs together
SAME = 1e-12  # two runs on equal inputs agree to this, relative to the largest output


def gradcheck(
    fn: Any,
    inputs: Any,
    *,
    params: Any = None,
    wrt: Sequence[int] | None = None,
    mode: Literal["full", "directions"] | None = None,
    directions: int = 4,
    eps: float = 1e-3,
    rtol: float = 1e-6,
    atol_scale: float = 1e-8,
    seed: int = 0,
    name: str | None = None,
    raise_exception: bool = True,
) -> GradcheckReport:
    """Compare the gradients of `fn` at `inputs` with numerical derivatives.

    Raises `GradcheckError`, an AssertionError that explains what is wrong, when they differ.

    fn: a function of tensors that returns a tensor or several, or a module; or a pair `(forward,
        vjp)` of array functions of anyone's, where `vjp(upstream, *inputs)` returns one gradient an
        input (None for zero).
    inputs: arrays, tensors, numbers or lists of arrays. They are copied to float64, whatever their
        type; integers, booleans and other values are passed as they are and not differentiated.
    params: what else is differentiated: tensors, a dict of them, or anything with
        `named_parameters()`; by default the parameters of `fn` if it has any, and `[]` leaves those
        out. They are float64 during the check and as they were after it, and so are the modules'
        buffers and the random state: every evaluation draws the same numbers.
    wrt: the positions of the inputs to differentiate; all by default.
    mode: "full" compares every element of the Jacobian; "directions" compares projections on random
        directions, `directions` of them for each input and parameter, and looks for the wrong
        element only when one differs. By default "full" up to 2000 elements.
    eps: the first step, relative to an element's size; smaller and larger ones are tried where it
        does not resolve.
    rtol, atol_scale: an element passes where |analytic - numeric| <= rtol max(|analytic|,
        |numeric|) + atol_scale max|J|, up to the rounding of the numeric value.
    raise_exception: False returns the report of a failed check, which is false in a condition.

    An element where the function has a corner, as relu has at 0, has no derivative: it is listed in
    `report.kinks` and passes if the gradient lies between the slopes of the two sides.

    >>> import numpy as np
    >>> import minires as mr
    >>> bool(mr.gradcheck(lambda x: (x * x).sum(), [np.array([1.0, -2.0])]))
    True
    >>> wrong = (lambda x: x**3, lambda g, x: 2 * g * x**2)
    >>> print(mr.gradcheck(wrong, [np.array([1.0, -2.0])], raise_exception=False).worst)
    d output[1] / d input 0[1]: analytic 8, numeric 12
    """
    start = time.perf_counter()
    settings = Settings(directions, eps, rtol, atol_scale, seed)
    report = GradcheckReport(name or _name_of(fn))
    try:
        subject = _subject(fn, inputs, wrt, params)
        with ExitStack() as stack:
            stack.enter_context(np.errstate(all="ignore"))  # a step off the domain gives NaN
            if isinstance(subject, TensorSubject):
                stack.enter_context(subject.frozen())
            _check(subject, mode, settings, report)
    except GradcheckError as error:
        report.passed, report.message = False, f"  {error}"
    except DTypeError as error:
        error.add_note("gradcheck runs in float64: name what fn uses beside its inputs in params=")
        raise
    report.seconds = time.perf_counter() - start
    if raise_exception and not report:
        raise GradcheckError(str(report), report)
    return report


def _name_of(fn: Any) -> str:
    first = fn[0] if isinstance(fn, list | tuple) and fn else fn
    found = getattr(first, "name", None) or getattr(first, "__name__", None)
    return found if isinstance(found, str) else type(first).__name__


def _subject(fn: Any, inputs: Any, wrt: Sequence[int] | None, params: Any) -> Subject:
    if isinstance(fn, list | tuple):
        if len(fn) != 2 or not all(map(callable, fn)):
            raise GradcheckError(
                "expected a function, a module or a pair (forward, vjp) of functions"
            )
        if params is not None:
            raise GradcheckError("a pair (forward, vjp) has no params: pass everything as inputs")
        return PairSubject(fn, inputs, wrt)
    if not callable(fn):
        raise GradcheckError(f"expected a function, a module or a pair, got {type(fn).__name__}")
    return TensorSubject(fn, inputs, wrt, params)


def _check(subject: Subject, mode: Any, settings: Settings, report: GradcheckReport) -> None:
    if not subject.variables:
        raise GradcheckError("nothing to differentiate: no input is real-valued")
    values = [v.value for v in subject.variables]
    for name, value in subject.variables:
        if not np.isfinite(value).all():
            raise GradcheckError(f"{name} holds NaN or Inf")
    outputs = subject.outputs(values)
    for i, y in enumerate(outputs):
        if not np.isfinite(y).all():
            index = tuple(int(k) for k in np.argwhere(~np.isfinite(y))[0])
            raise GradcheckError(
                f"output {i} is {y[index]} at {index}: nothing can be compared there"
            )
    for i, (y, again) in enumerate(zip(outputs, subject.outputs(values))):
        change = np.abs(y - again).max(initial=0.0) if y.shape == again.shape else np.inf
        if not change <= SAME * np.abs(y).max(initial=0.0):
            raise GradcheckError(
                f"two runs on equal inputs differ: output {i} changes by {change:.3g}. The "
                "function is random, or keeps state that is no buffer and not minires' random state"
            )
    size = sum(a.size for a in (*values, *outputs))
    report.mode = mode or ("full" if size <= FULL_UP_TO else "directions")
    modes: dict[str, Callable[..., None]] = {"full": check_full, "directions": check_directions}
    if report.mode not in modes:
        raise ValueError(f"gradcheck: mode is {mode!r} but must be 'full', 'directions' or None")
    with _one_thread() if size <= FULL_UP_TO else nullcontext():
        modes[report.mode](subject, values, outputs, settings, report)


@contextmanager
def _one_thread() -> Iterator[None]:
    """Small arrays are not worth waking other threads for, and no result depends on their
    number."""
    before = threads()
    set_threads(1)
    try:
        yield
    finally:
        set_threads(before)
