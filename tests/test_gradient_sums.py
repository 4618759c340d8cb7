"""Gradients that several nodes send to one tensor: a backward closure may take and add to them."""

from __future__ import annotations

import numpy as np
import pytest

import minires as mr
import minires.functional as F
from minires.errors import GraphError
from minires.op import OPS, op
from tests.tolerances import FLOAT32

__all__: list[str] = []


def leaf(values, dtype=np.float64):
    return mr.tensor(np.asarray(values, dtype), requires_grad=True)


@pytest.fixture
def half():
    """x / 2, whose backward takes what there is of x's gradient and notes it."""
    noted = []

    @op()
    def half(x):
        def backward(g, needs, take):
            total = take(0)
            noted.append(None if total is None else total.tolist())
            return (g / 2 if total is None else total + g / 2,)

        return x / 2, backward

    yield half, noted
    del OPS["half"]


def test_backward_may_take_what_was_gathered(half):
    half, noted = half
    x = leaf([2.0])
    y = x * 1
    first, second, third = half(y), half(y), y * 3
    loss = (first + second + third).sum()
    for times in (1, 2):
        noted.clear()
        loss.backward(retain_graph=True)
        assert noted == [[3.0], [3.5]]  # the youngest went first
        assert x.grad.tolist() == [4.0 * times]


def test_backward_takes_nothing_that_is_not_for_it_alone(half):
    half, noted = half
    x = leaf([2.0])
    half(x).backward()
    half(x).backward()  # a leaf's gradient may be held by somebody
    y = x * 1
    taken, passed = half(y), y.reshape((1, 1))  # whose gradient is a view of another
    (taken.reshape((1, 1)) + passed).sum().backward()
    assert noted == [None] * 3
    assert x.grad.tolist() == [2.5]


def test_a_failure_after_taking_leaves_nothing_behind(half):
    half, _ = half
    x, w = leaf([2.0]), leaf([5.0])
    a = x * 1
    b = half(a * w)
    loss = (half(a) * b).sum() + (a * 3).sum()
    with mr.no_grad():
        w += 1
    with pytest.raises(GraphError):
        loss.backward(retain_graph=True)
    x.zero_grad()
    (a * 1).sum().backward()
    assert x.grad.tolist() == [1]


def test_items_taken_one_by_one_gather_in_one_array():
    x = leaf(np.arange(6.0).reshape(2, 3))
    y = x * 1
    loss = sum((i + 1.0) * y[i % 2, i // 2 :].sum() for i in range(4)) + (y * 0.5).sum()
    loss.backward()
    expected = np.full((2, 3), 0.5)
    for i in range(4):
        expected[i % 2, i // 2 :] += i + 1
    np.testing.assert_array_equal(x.grad, expected)


@pytest.mark.parametrize("stride", [1, 2])
def test_a_block_s_gradients_are_those_of_its_branches(rng, stride):
    """What a convolution adds to in its kernel is what the walk would have added."""
    x = rng.standard_normal((3, 8, 8, 16)).astype(np.float32)
    w = rng.standard_normal((3, 3, 16, 16)).astype(np.float32)
    g = rng.standard_normal((3, 8 // stride, 8 // stride, 16)).astype(np.float32)
    branches = (
        lambda y: y[:, ::stride, ::stride] * 2,
        lambda y: F.conv2d(y, w, stride=stride, padding=1),
        lambda y: F.conv_bias(y, w[:1, :1], stride=stride, relu=True),
        lambda y: F.conv_norm(y, w, *np.ones((2, 16), np.float32), training=True, padding=1)[
            :, ::stride, ::stride
        ],
    )
    alone = []
    for branch in branches:
        leaf_x = leaf(x, np.float32)
        branch(leaf_x * 1).backward(g)
        alone.append(leaf_x.grad)
    together = leaf(x, np.float32)
    y = together * 1
    sum(branch(y) for branch in branches).backward(g)
    expected = sum(a.astype(np.float64) for a in alone)
    error = np.linalg.norm(together.grad - expected) / np.linalg.norm(expected)
    assert error < FLOAT32
