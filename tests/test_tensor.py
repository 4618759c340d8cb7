"""`Tensor`: what it holds, how data gets in and out, and what its operators do in place."""

from __future__ import annotations

import numpy as np
import pytest

import minires as mr
from minires.errors import DTypeError, GraphError, ShapeError

__all__: list[str] = []


@pytest.mark.parametrize(
    ("given", "dtype"),
    [
        (np.ones(2, np.float32), np.float32),
        (np.ones(2, np.float64), np.float64),
        (1, np.float32),
        (2.5, np.float32),
        ([1, 2], np.float32),
        ([[1.0], [2.0]], np.float32),
        (np.array([1, 2]), np.int64),
        (np.array([1], np.uint8), np.uint8),
        (np.array([True]), np.bool_),
        (np.float64(3), np.float64),
    ],
)
def test_dtype_kept_or_float32(given, dtype):
    assert mr.tensor(given).dtype == dtype


def test_dtype_asked_for():
    assert mr.tensor([1, 2], dtype="float64").dtype == np.float64
    assert mr.tensor(np.array([1, 2]), dtype=np.float32, requires_grad=True).requires_grad


@pytest.mark.parametrize("bad", [np.ones(2, np.float16), np.ones(2, complex), np.array(["a"])])
def test_other_dtypes_are_refused(bad):
    with pytest.raises(DTypeError, match=str(bad.dtype)):
        mr.tensor(bad)


def test_integers_have_no_gradients():
    with pytest.raises(DTypeError, match="only float32 and float64 have gradients, not int64"):
        mr.tensor(np.array([1, 2]), requires_grad=True)


def test_tensor_copies():
    a = np.ones(3)
    t = mr.tensor(a)
    a[0] = 5
    assert t.numpy()[0] == 1


def test_numpy_is_a_read_only_view():
    t = mr.tensor([1.0, 2.0])
    view = t.numpy()
    with pytest.raises(ValueError, match="read-only"):
        view[0] = 3
    t.assign([5.0, 6.0])
    assert view.tolist() == [5, 6]
    assert np.asarray(t).tolist() == [5, 6]


def test_assign_changes_data_and_version():
    t = mr.tensor(np.zeros((2, 3)))
    before = t.version
    t.assign(np.arange(3))
    assert t.version == before + 1
    assert t.numpy().tolist() == [[0, 1, 2]] * 2
    with pytest.raises(ShapeError, match=r"value has shape \(4,\) but the tensor \(2, 3\)"):
        t.assign(np.zeros(4))
    with pytest.raises(ShapeError, match="value has shape"):
        t.assign(np.zeros((5, 2, 3)))


def test_item_len_iteration_and_truth():
    t = mr.tensor([[1.0, 2.0], [3.0, 4.0]])
    assert len(t) == 2
    assert [row.numpy().tolist() for row in t] == [[1, 2], [3, 4]]
    assert t[1, 0].item() == 3
    assert float(t[0, 1]) == 2
    assert bool(t[0, 0] == 1)
    with pytest.raises(
        ShapeError, match=r"item: needs a tensor of one element, got shape \(2, 2\)"
    ):
        t.item()
    with pytest.raises(TypeError, match="no length"):
        len(t[0, 0])


def test_numpy_arrays_on_the_left_make_tensors():
    t = mr.tensor([1.0, 2.0], requires_grad=True)
    y = np.array([3.0, 4.0], np.float32) * t
    assert isinstance(y, mr.Tensor)
    y.backward(np.ones(2))
    assert t.grad.tolist() == [3, 4]
    assert isinstance(np.ones((2, 2), np.float32) @ t, mr.Tensor)


@pytest.mark.parametrize("number", [2, 2.5, np.float64(2.5), np.int64(2), True])
def test_python_numbers_do_not_change_the_dtype(number):
    t = mr.tensor([1.0, 2.0])
    for y in (t + number, number - t, t * number, t / number, number / t, t**number):
        assert y.dtype == np.float32


def test_integer_arrays_take_the_float_dtype():
    t = mr.tensor([1.0, 2.0])
    assert (t * np.array([2, 3])).dtype == np.float32
    assert (np.array([2, 3]) + t).dtype == np.float32


def test_mixed_floats_promote_and_gradients_return_in_their_own_dtype():
    x = mr.tensor(np.ones(2, np.float32), requires_grad=True)
    y = mr.tensor(np.ones(2, np.float64), requires_grad=True)
    z = x * y
    assert z.dtype == np.float64
    z.sum().backward()
    assert (x.grad.dtype, y.grad.dtype) == (np.float32, np.float64)


def test_comparisons_are_bare_boolean_arrays():
    t = mr.tensor([1.0, 2.0, 3.0])
    assert (t > 2).tolist() == [False, False, True]
    assert (t <= mr.tensor([1.0, 1.0, 5.0])).tolist() == [True, False, True]
    assert (t == t).all()
    assert not (t != t).any()
    assert len({t, t}) == 1  # hashed by identity


def test_in_place_operators_write_where_no_gradient_is_recorded():
    t = mr.tensor([1.0, 2.0])
    array = t.array
    t += 1
    t *= 2
    t -= [0.5, 0.5]
    t /= 2
    assert t.array is array
    assert array.tolist() == [1.75, 2.75]
    assert t.version == 4


def test_in_place_on_a_leaf_needs_no_grad():
    w = mr.tensor([1.0], requires_grad=True)
    with pytest.raises(GraphError, match="in-place add: a leaf that requires grad"):
        w += 1
    with mr.no_grad():
        w -= 0.25
    assert w.item() == 0.75


def test_in_place_in_the_graph_means_a_new_tensor():
    x = mr.tensor([2.0], requires_grad=True)
    y = first = x * 3
    y += x * x
    y.backward()
    assert first.item() == 6
    assert x.grad.item() == 7


def test_detach_shares_memory_and_version():
    x = mr.tensor([1.0], requires_grad=True)
    d = x.detach()
    assert not d.requires_grad
    d.assign([4.0])
    assert x.item() == 4
    assert x.version == 1


def test_to_dtype_is_differentiable():
    x = mr.tensor([1.0, 2.0], requires_grad=True)
    y = x.to("float64")
    assert y.dtype == np.float64
    (y * y).sum().backward()
    assert x.grad.tolist() == [2, 4]
    assert x.grad.dtype == np.float32
    assert x.to(np.float32) is x
    assert x.to("cpu") is x


def test_methods_are_the_operations():
    x = mr.tensor(np.arange(6.0).reshape(2, 3))
    assert x.reshape(3, 2).shape == x.reshape((3, 2)).shape == (3, 2)
    assert x.transpose().shape == x.T.shape == x.transpose(1, 0).shape == (3, 2)
    assert x.sum().item() == 15
    assert x.mean(axis=0).numpy().tolist() == [1.5, 2.5, 3.5]
    assert x.max(axis=1, keepdims=True).shape == (2, 1)
    assert x.var(ddof=1).item() == pytest.approx(3.5)
    assert x.argmax(axis=1).tolist() == [2, 2]
    assert x.flatten().shape == (6,)


def test_repr_says_what_matters():
    x = mr.tensor([1.0], requires_grad=True)
    assert repr(x) == "tensor([1.], requires_grad=True)"
    assert repr(x * 2) == "tensor([2.], op=mul)"
    assert repr(mr.tensor(np.ones(1))) == "tensor([1.], dtype=float64)"


def test_lists_of_unknown_things_are_refused():
    with pytest.raises(DTypeError, match="expected a tensor, an array or a number, got dict"):
        mr.tensor([1.0]) + {}
