"""`gradcheck` itself: what it takes, what it leaves as found, kinks, large inputs, pairs."""

from __future__ import annotations

import numpy as np
import pytest

import minires as mr
import minires.functional as F
from minires import gradcheck, nn
from minires.errors import DTypeError
from minires.random import get_state
from tests.checking.common import MODES, RNG, W, X, failure

__all__: list[str] = []

# Inputs


@MODES
@pytest.mark.parametrize("kind", [np.float32, np.float64, list, mr.tensor])
def test_inputs_of_every_kind_are_checked_in_float64(kind, mode):
    seen = []

    def function(x, w):
        seen.append((x.dtype, w.dtype))
        return x @ w

    inputs = [x.tolist() if kind is list else x.astype(kind) if isinstance(kind, type) else kind(x)
              for x in (X, W)]  # fmt: skip
    report = gradcheck(function, inputs, mode=mode)
    assert report.passed
    assert report.checked == (6 * (12 + 8) if mode == "full" else 8)
    assert set(seen) == {(np.dtype(np.float64),) * 2}


def test_integers_are_passed_as_they_are():
    labels = np.array([0, 1, 1])

    def function(x, target, power):
        assert target is labels
        assert power == 2
        return F.cross_entropy(x, target) ** power

    assert gradcheck(function, [X, labels, 2]).checked == 12


def test_one_input_needs_no_list_and_numbers_are_differentiated():
    assert gradcheck(lambda x: x * x, X)
    assert gradcheck(lambda x, c: x * c, [X, 1.5]).checked == 12 * 13


def test_a_list_of_arrays_is_one_input():
    report = gradcheck(lambda xs: F.concatenate(xs, axis=1), [[X, X + 1]])
    assert report.checked == 24 * 24
    wrong = (lambda xs: xs[0] + xs[1], lambda g, xs: ([g, 2 * g],))
    assert "input 0 item 1 is wrong" in failure(wrong, [[X, X]])


def test_wrt_chooses_inputs():
    wrong_for_second = (lambda x, w: x @ w, lambda g, x, w: (g @ w.T, None))
    assert gradcheck(wrong_for_second, [X, W], wrt=[0]).checked == 6 * 12
    assert "input 1 is wrong" in failure(wrong_for_second, [X, W])


def test_several_outputs_and_integer_ones():
    assert gradcheck(lambda x: (x * 2, x.sum(), mr.tensor(np.arange(3))), [X]).checked == 13 * 12
    pair = (lambda x: (x * 2, x.sum()), lambda g, x: g[0] * 2 + g[1] * 2)
    assert "output 1" in failure(pair, [X])


def test_inside_no_grad_and_with_a_detached_output():
    with mr.no_grad():
        assert gradcheck(lambda x: x * 3, [X])
    assert "not propagated" in failure(lambda x: x.detach() * 3, [X])


def test_the_mode_goes_by_size():
    assert gradcheck(F.exp, [np.zeros(1000)]).mode == "full"
    assert gradcheck(F.exp, [np.zeros(1001)]).mode == "directions"


# Modules


def network() -> nn.Sequential:
    layers = [nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3), nn.ReLU(), nn.Dropout(0.3), nn.Flatten()]
    return nn.Sequential(*layers, nn.Linear(27, 4))


@MODES
@pytest.mark.parametrize("fails", [False, True])
def test_everything_is_left_as_found(mode, fails):
    model, calls = network(), []
    model[0].weight.grad = np.ones_like(model[0].weight.array)
    found = [(p, p.array, p.array.copy(), p.grad) for p in model.parameters()]
    buffers = [(b, b.copy()) for _, b in model.named_buffers()]
    mr.manual_seed(5)
    mr.random.next_key()
    random = get_state()

    def function(x):
        calls.append(1)
        if fails and len(calls) > 20:
            raise RuntimeError("midway")
        return model(x)

    x = RNG.standard_normal((2, 5, 5, 2)).astype(np.float32)
    if fails:
        with pytest.raises(RuntimeError, match="midway"):
            gradcheck(function, [x], params=model, mode=mode)
    else:
        assert gradcheck(function, [x], params=model, mode=mode)
    for p, array, value, grad in found:
        assert p.array is array
        assert p.grad is grad
        assert p.dtype == np.float32
        np.testing.assert_array_equal(array, value)
    for (b, value), (_, now) in zip(buffers, model.named_buffers(), strict=True):
        assert now is b
        np.testing.assert_array_equal(b, value)
    assert get_state() == random


def test_parameters_are_covered_and_named():
    layer = nn.Linear(4, 2)
    assert gradcheck(layer, [X]).checked == 6 * (12 + 8 + 2)
    assert gradcheck(layer, [X], params=[]).checked == 6 * 12
    assert gradcheck(layer.forward, [X]).checked == 6 * (12 + 8 + 2)
    assert gradcheck(lambda x: x @ layer.weight, [X], params=[layer.weight]).checked == 6 * 20
    with pytest.raises(DTypeError, match="x is float64 but w is float32") as caught:
        gradcheck(lambda x: layer(x), [X])
    assert "name what fn uses beside its inputs in params=" in caught.value.__notes__[0]
    layer.weight.requires_grad = False
    assert gradcheck(layer, [X]).checked == 6 * (12 + 2)

    class Broken(nn.Module):
        def __init__(self):
            self.scale = nn.Parameter(np.ones(4, np.float32))

        def forward(self, x):
            return x * self.scale + x * self.scale.detach()

    assert "parameter scale is wrong" in failure(Broken(), [X])
    w = mr.tensor(np.ones(4), requires_grad=True)
    text = failure(lambda x: x * w.detach(), [X], params={"gain": w})
    assert "parameter gain is wrong" in text
    assert "zero everywhere" in text


def test_a_module_that_counts_in_a_buffer_it_replaces():
    class Counting(nn.Module):
        def __init__(self):
            self.register_buffer("count", np.zeros(()))

        def forward(self, x):
            self.count = self.count + 1
            return x * float(self.count)

    module = Counting()
    assert gradcheck(module, [X])
    assert module.count == 0


def test_random_functions_are_frozen_or_refused():
    assert gradcheck(lambda x: F.dropout(x, p=0.5), [X])
    rng = np.random.default_rng(0)
    text = failure(lambda x: x * mr.tensor(rng.random(4)), [X])
    assert "two runs on equal inputs differ: output 0" in text


# Kinks


@MODES
def test_kinks_are_reported_not_failed(mode):
    x = np.array([[1.0, 0.0, -2.0], [1e-5, 3.0, 0.0]])
    report = gradcheck(F.relu, [x], mode=mode)
    assert sorted(k.index for k in report.kinks) == [(0, 1), (1, 2)]
    assert "kink at input 0[0, 1]" in str(report)


def test_the_gradient_at_a_kink_must_lie_between_the_slopes():
    def relu(factor):
        return lambda x: np.maximum(x, 0), lambda g, x: g * np.where(x == 0, factor, x > 0)

    x = np.array([0.0, 1.0])
    for factor in (0, 0.3, 0.5, 1):
        assert gradcheck(relu(factor), [x])
    for factor in (-0.1, 1.1, 2):
        text = failure(relu(factor), [x])
        assert "kink at input 0[0]: slope 0 on the left, 1 on the right" in text
        assert f"analytic {factor:g}: not between the slopes" in text


def test_ties_of_the_maximum():
    assert gradcheck(lambda x: F.max_pool2d(x, kernel_size=2), [np.ones((1, 4, 4, 1))]).kinks
    assert gradcheck(lambda x: x.max(axis=1), [np.zeros((2, 3))])


def test_kinks_nearby_do_not_disturb():
    x = np.array([3e-4, -1e-5, 1e-3, -2e-6, 1.0])
    report = gradcheck(F.relu, [x])
    assert not report.kinks


def test_more_kinks_than_are_looked_for():
    report = gradcheck(F.relu, [np.zeros(3000)])
    assert report.notes
    assert "32 kinks or more in input 0" in str(report)


# Large inputs


def test_one_wrong_element_among_many_is_found_and_named():
    def vjp(g, x):
        dx = g * np.cos(x)
        dx[12, 345] *= 1.01
        return dx

    x = RNG.standard_normal((40, 500))
    assert gradcheck((np.sin, lambda g, x: g * np.cos(x)), [x])
    report = gradcheck((np.sin, vjp), [x], raise_exception=False)
    assert report.worst is not None
    assert report.worst.index == (12, 345)
    assert "at input 0[12, 345], outputs projected" in str(report)


def test_a_network_in_random_directions():
    report = gradcheck(network(), [RNG.standard_normal((4, 5, 5, 2))], mode="directions")
    assert report.checked == 4 * 7
    assert not report.kinks


# Pairs of array functions


def test_pairs_need_no_tensor():
    pair = (lambda x, w: x @ w, lambda g, x, w: (g @ w.T, x.T @ g))
    assert gradcheck(pair, [X, W]).checked == 6 * 20
    assert gradcheck((np.sum, lambda g, x: np.full_like(x, g)), [X])
    ids = np.array([1, 0, 2])
    take = (lambda x, i: x[i], lambda g, x, i: g[np.argsort(i)])
    assert gradcheck(take, [X, ids])
    assert gradcheck((take[0], lambda g, x, i: (take[1](g, x, i), None)), [X, ids])


WRONG = {
    "has shape (4,), expected (3, 4)": lambda g, x: g.sum(axis=0),
    "transposed?": lambda g, x: g.T,
    "sum over the axes that were added": lambda g, x: np.stack([g, g]),
    "is float32, expected float64": lambda g, x: g.astype(np.float32),
    "returned 3 gradients for 1 inputs": lambda g, x: (g, g, g),
    "vjp wrote into input 0": lambda g, x: x.__imul__(2),
    "not linear in the upstream": lambda g, x: g if (g != 0).sum() == 1 else g * 1.5,
}


@pytest.mark.parametrize("message", WRONG)
def test_wrong_gradients_of_pairs(message):
    assert message in failure((lambda x: x.copy(), WRONG[message]), [X])


def test_forward_may_not_write_into_its_inputs():
    assert "forward wrote into input 0" in failure((lambda x: x.__imul__(2), lambda g, x: g), [X])
