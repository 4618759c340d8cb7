"""The graph: accumulation, freeing, and every misuse that would give a wrong gradient."""

from __future__ import annotations

import gc
import time
import weakref

import numpy as np
import pytest

import minires as mr
import minires.functional as F
from minires.errors import GraphError, NonFiniteError, ShapeError
from minires.kernels.cases import Case
from minires.op import OPS, op

__all__: list[str] = []


def leaf(values, dtype=np.float64):
    return mr.tensor(np.asarray(values, dtype), requires_grad=True)


def test_gradients_of_a_diamond_add_up():
    x = leaf([3.0])
    y = x * 2
    z = y * y + y * x + x
    z.backward()
    assert x.grad.tolist() == [8 * 3 + 4 * 3 + 1]


def test_a_broadcast_gradient_is_not_added_to_in_place():
    x = leaf([[1.0, 2.0], [3.0, 4.0]])
    y = x * 2
    tripled = y * 3
    mean = y.mean()  # its gradient, one number broadcast, reaches y first
    (tripled.sum() + mean).backward()
    assert x.grad.tolist() == [[6.5, 6.5]] * 2


def test_grad_accumulates_until_zeroed():
    x = leaf([1.0, 2.0])
    for times in (1, 2):
        (x * 3).sum().backward()
        assert x.grad.tolist() == [3 * times] * 2
    x.zero_grad()
    assert x.grad is None


def test_a_held_gradient_is_not_overwritten():
    x = leaf([1.0])
    (x * 3).sum().backward()
    held = x.grad
    (x * 5).sum().backward()
    assert held.tolist() == [3]
    assert x.grad.tolist() == [8]


def test_leaves_do_not_share_gradient_arrays():
    x, y = leaf([1.0]), leaf([2.0])
    upstream = np.ones(1)
    (x + y).backward(upstream)
    x.grad += 10
    assert y.grad.tolist() == [1]
    assert upstream.tolist() == [1]


def test_upstream_is_weighted_and_checked():
    x = leaf([[1.0, 2.0]])
    y = x * x
    y.backward(np.array([[10, 100]]), retain_graph=True)
    assert x.grad.tolist() == [[20, 400]]
    with pytest.raises(ShapeError, match=r"upstream has shape \(2,\) but the tensor \(1, 2\)"):
        y.backward(np.ones(2))
    with pytest.raises(ShapeError, match=r"give an upstream array of shape \(1, 2\)"):
        y.backward()


def test_backward_needs_something_to_differentiate():
    with pytest.raises(GraphError, match="depends on nothing that requires a gradient"):
        mr.tensor([1.0]).backward()


def test_backward_on_a_leaf():
    x = leaf([1.0, 2.0])
    x.backward(np.array([3.0, 4.0]))
    assert x.grad.tolist() == [3, 4]


def test_graph_used_twice():
    x = leaf([2.0])
    y = x * x
    y.backward()
    with pytest.raises(GraphError, match="graph through mul was already differentiated"):
        y.backward()
    with pytest.raises(GraphError, match="retain_graph=True"):
        (y + 1).backward()


def test_retain_graph():
    x = leaf([2.0])
    y = x * x
    y.backward(retain_graph=True)
    y.backward()
    assert x.grad.tolist() == [8]


def test_second_order_is_refused():
    x = leaf([2.0])
    with pytest.raises(GraphError, match="second-order gradients are not supported"):
        (x * x).backward(create_graph=True)


def test_no_grad_and_enable_grad():
    x = leaf([1.0])
    with mr.no_grad():
        assert not mr.is_grad_enabled()
        assert not (x * 2).requires_grad
        with mr.enable_grad():
            assert (x * 2).requires_grad
        assert not (x * 2).requires_grad

    @mr.no_grad()
    def twice(t):
        return t * 2

    assert not twice(x).requires_grad
    assert twice(x).item() == twice(x).item()
    assert (x * 2).requires_grad


def test_input_changed_in_place_is_detected():
    x = leaf([1.0, 2.0])
    y = F.exp(x) * x
    with mr.no_grad():
        x += 1
    with pytest.raises(GraphError, match=r"tensor input . of mul was changed in place"):
        y.sum().backward()


def test_output_changed_in_place_is_detected():
    x = leaf([1.0, 2.0])
    y = F.exp(x)  # its gradient needs the output
    z = y.sum()
    y.assign(np.zeros(2))
    with pytest.raises(GraphError, match="changed in place"):
        z.backward()


def test_write_through_a_view_is_detected():
    x = leaf(np.ones((2, 3)))
    view = x.detach().reshape(6)[1:3]
    y = x * x
    view.assign(7.0)
    assert x.numpy()[0].tolist() == [1, 7, 7]
    with pytest.raises(GraphError, match="changed in place"):
        y.sum().backward()


def test_optimiser_step_between_forward_and_backward_is_detected():
    w = mr.nn.Parameter(np.ones(3, np.float32))
    optimiser = mr.optim.SGD([w], lr=0.1)
    (w * w).sum().backward()
    loss = (w * w).sum()
    optimiser.step()
    with pytest.raises(GraphError, match="changed in place"):
        loss.backward()


def test_anomaly_names_the_first_op():
    x = leaf([1.0, 0.0])
    with mr.detect_anomaly():
        with (
            pytest.raises(
                NonFiniteError, match=r"log: 1 of 2 output values .* first at \(1,\)"
            ) as e,
            np.errstate(divide="ignore"),
        ):
            (F.log(x) * 2).sum()
        assert e.value.op == "log"
    with np.errstate(divide="ignore"):
        assert not np.isfinite(F.log(x).numpy()).all()  # silent outside


def test_anomaly_in_backward_names_the_op():
    x = leaf([0.0])
    with mr.detect_anomaly(), np.errstate(divide="ignore"):
        y = F.sqrt(x)
        with pytest.raises(NonFiniteError, match=r"sqrt \(backward\)"):
            y.backward()


def test_anomaly_says_when_the_input_was_bad_already():
    x = leaf([np.nan])
    with mr.detect_anomaly(), pytest.raises(NonFiniteError, match="mul: 1 of 1 input-0 values"):
        x * 2


def test_intermediates_are_freed_as_backward_goes():
    alive = []

    def watch(a):
        alive.append(weakref.ref(a))
        return a

    @op(Case((3,)))
    def kept_square(x):
        kept = watch(x * 1)

        def backward(g):
            seen.append(sum(r() is not None for r in alive))
            return (2 * kept * g,)

        return kept * kept, backward

    try:
        seen: list[int] = []
        y = leaf(np.full(3, 0.5))
        for _ in range(5):
            y = kept_square(y)
        gc.collect()
        assert sum(r() is not None for r in alive) == 5
        y.backward(np.ones(3))
        assert seen == [5, 4, 3, 2, 1]
        assert not any(r() is not None for r in alive)
    finally:
        del OPS["kept_square"]


def test_a_failed_backward_leaves_no_half_made_sums():
    x, w = leaf([2.0]), leaf([5.0])
    a = x * 3
    b = a * w
    loss = (b + a).sum()
    with mr.no_grad():
        w += 1
    with pytest.raises(GraphError):
        loss.backward(retain_graph=True)
    x.zero_grad()
    (a * 1).sum().backward()
    assert x.grad.tolist() == [3]


def test_a_wrong_gradient_shape_is_named():
    @op(Case((2,)))
    def broken(x):
        return x * 1, lambda g: (g[:1],)

    try:
        with pytest.raises(ShapeError, match=r"backward of broken returned .* \(1,\) for input 0"):
            broken(leaf([1.0, 2.0])).sum().backward()
    finally:
        del OPS["broken"]


def test_arrays_by_name_and_numbers_as_inputs():
    x, w = leaf(np.ones((2, 3))), leaf(np.ones((3, 4)))
    b = leaf(np.ones(4))
    F.linear(x, w, b=b).sum().backward()
    assert b.grad.tolist() == [2] * 4
    with pytest.raises(TypeError, match="unexpected keyword argument 'bias'"):
        F.linear(x, w, bias=b)


def test_plain_parameters_by_position():
    x = leaf(np.arange(16.0).reshape(1, 4, 4, 1))
    assert F.max_pool2d(x, 2, 1).shape == (1, 3, 3, 1)
    assert F.reshape(x, (4, 4)).shape == (4, 4)
    assert F.sum(x, 1, keepdims=True).shape == (1, 1, 4, 1)
    with pytest.raises(TypeError, match="relu.* got too many arguments: 2"):
        F.relu(x, 1)
    with pytest.raises(TypeError, match="sum.* got too many arguments"):
        F.sum(x, 1, axis=1)


def chain_seconds(x, length):
    """CPU time of so many additions, and of their backward if they are recorded."""
    start = time.process_time()
    y = x
    for _ in range(length):
        y = y + 1.0
    if hasattr(y, "backward"):
        y.backward(np.ones(1))
    return time.process_time() - start


def test_a_long_chain_is_fast_and_shallow():
    """It takes some 20 times as long as NumPy's additions alone, and ten times a tenth of it."""
    x = leaf([1.0])
    gc.collect()
    gc.freeze()  # what the tests before have left is not to be looked through
    try:
        long, tenth, plain = (
            min(chain_seconds(start, length) for _ in range(2))
            for start, length in ((x, 100_000), (x, 10_000), (x.numpy(), 100_000))
        )
    finally:
        gc.unfreeze()
    assert long < 40 * plain
    assert long < 10 * 4 * tenth
    assert x.grad.tolist() == [4]


def test_a_long_chain_can_be_dropped():
    y = leaf([1.0])
    for _ in range(100_000):
        y = y * 1.0
    del y
