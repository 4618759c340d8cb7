"""The drawn data set: reproducible, balanced, and not to be told apart by a linear classifier."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minires.data import normalisation, normalise, shapes
from minires.data.shapes import DISTANCES

__all__: list[str] = []


def test_a_picture_depends_on_seed_and_index_only() -> None:
    many = shapes("train", 1100)
    for n in (1, 499, 500, 501):
        np.testing.assert_array_equal(shapes("train", n).images, many.images[:n])
    assert (shapes("train", 20, seed=1).images != many.images[:20]).any(axis=(1, 2, 3)).all()


def test_the_splits_share_no_picture() -> None:
    train, test = shapes("train", 600).images, shapes("test", 600).images
    assert len({image.tobytes() for image in (*train, *test)}) == 1200


def test_sizes_and_balance() -> None:
    test = shapes("test")
    assert test.images.shape == (2000, 32, 32, 3)
    assert test.images.dtype == np.uint8
    assert test.images.flags.c_contiguous
    assert len(test.classes) == 10
    assert np.bincount(test.labels).tolist() == [200] * 10
    assert np.bincount(shapes("train", 37).labels).tolist() == [4] * 7 + [3] * 3


def test_the_pictures_stay_what_they_were() -> None:
    """A change of the drawing changes every stored result, so let it be on purpose."""
    found = shapes("test", 10).images.mean(axis=(1, 2, 3))
    np.testing.assert_allclose(found, PINNED, atol=0.02)  # a cosine may round otherwise elsewhere


PINNED = [125.023, 83.234, 85.498, 205.652, 154.522, 89.843, 125.680, 118.743, 121.379, 108.608]


def test_figures_stand_out_from_their_ground() -> None:
    """Over many pictures the bytes use the whole range and no picture is flat."""
    images = shapes("train", 500).images
    assert images.min() == 0
    assert images.max() == 255
    assert images.std(axis=(1, 2)).max(axis=1).min() > 12


@pytest.mark.parametrize("name", DISTANCES)
@given(points=st.lists(st.tuples(*[st.floats(-1.5, 1.5, width=32)] * 2), min_size=2, max_size=8))
def test_a_distance_never_grows_faster_than_the_way(name: str, points: list) -> None:
    x, y = np.array(points, np.float64).T
    d = DISTANCES[name](x, y)
    way = np.hypot(x[:, None] - x, y[:, None] - y)
    assert (np.abs(d[:, None] - d) <= way * (1 + 1e-9) + 1e-9).all()


@pytest.mark.parametrize("name", DISTANCES)
def test_a_figure_fills_its_disc_and_ends_there(name: str) -> None:
    y, x = np.mgrid[-1.6:1.6:161j, -1.6:1.6:161j]
    inside = DISTANCES[name](x, y) < 0
    radius = np.hypot(x, y)
    assert radius[inside].max() < 1.3
    assert radius[inside].max() > 0.85
    assert not inside[[0, -1]].any()
    assert not inside[:, [0, -1]].any()
    assert 0.15 < inside.mean() * 3.2**2 / np.pi < 0.85


def test_the_classes_differ_in_form() -> None:
    y, x = np.mgrid[-1.2:1.2:64j, -1.2:1.2:64j]
    masks = [DISTANCES[name](x, y) < 0 for name in DISTANCES]
    for i, one in enumerate(masks):
        for other in masks[:i]:
            assert (one & other).sum() < 0.9 * (one | other).sum()


def test_logistic_regression_fails_where_a_small_network_succeeds() -> None:
    """Fully trained, with the decay that suits the test set best; it learns by heart at most."""
    train, test = shapes("train"), shapes("test")
    stats = normalisation("dataset", train)
    x, x_test = (normalise(part.images, *stats).reshape(len(part), -1) for part in (train, test))
    results = [
        logistic_regression(x, train.labels, x_test, test.labels, decay) for decay in (1e-3, 1e-1)
    ]
    fitted, tested = max(fit for fit, _ in results), max(accuracy for _, accuracy in results)
    assert fitted > tested + 0.05  # it does learn
    assert tested < 0.3


def test_that_logistic_regression_can_learn(rng: np.random.Generator) -> None:
    """The same code on ten classes that a plane does separate."""
    labels = rng.integers(0, 10, 3000)
    x = rng.standard_normal((3000, 200)).astype(np.float32)
    x[np.arange(3000), labels] += 5
    _, tested = logistic_regression(x[:2000], labels[:2000], x[2000:], labels[2000:], 1e-4)
    assert tested > 0.95


EPOCHS = 20


def logistic_regression(
    x: np.ndarray, labels: np.ndarray, x_test: np.ndarray, test_labels: np.ndarray, decay: float
) -> tuple[float, float]:
    """Multinomial, by stochastic gradient descent with momentum; (training, test) accuracy."""
    w, b = np.zeros((x.shape[1], 10), np.float32), np.zeros(10, np.float32)
    vw, vb = np.zeros_like(w), np.zeros_like(b)
    target, order = np.eye(10, dtype=np.float32)[labels], np.random.default_rng(0)
    for epoch in range(EPOCHS):
        rate = np.float32(2 / x.shape[1] * (1 - epoch / EPOCHS))
        for part in np.array_split(order.permutation(len(x)), len(x) // 100):
            z = x[part] @ w + b
            p = np.exp(z - z.max(axis=1, keepdims=True))
            g = (p / p.sum(axis=1, keepdims=True) - target[part]) / np.float32(len(part))
            vw = np.float32(0.9) * vw + x[part].T @ g + np.float32(decay) * w
            vb = np.float32(0.9) * vb + g.sum(axis=0)
            w, b = w - rate * vw, b - rate * vb
    return tuple(
        float(((a @ w + b).argmax(axis=1) == k).mean())
        for a, k in ((x, labels), (x_test, test_labels))
    )  # type: ignore[return-value]


@pytest.mark.parametrize(("arguments", "message"), [
    (("val",), r"split is 'val' but must be 'train' or 'test'"),
    (("train", 0), r"n is 0 but must be at least 1"),
])  # fmt: skip
def test_wrong_arguments(arguments: tuple, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        shapes(*arguments)
