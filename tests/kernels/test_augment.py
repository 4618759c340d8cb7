"""The augmentation kernels: every value is one that the definition allows, and all occur."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minires.kernels.augment import augment_batch, gather_batch, pixel_table
from minires.kernels.dispatch import ran, reference
from minires.kernels.random import Key, bits
from tests.gpu.everywhere import TWIN
from tests.tolerances import FLOAT32

__all__: list[str] = []

TABLE = pixel_table([0.4, 0.5, 0.6], [0.2, 0.25, 0.3])


def pictures(rng: np.random.Generator, n: int, h: int = 32, w: int = 32, c: int = 3) -> np.ndarray:
    """Random bytes, none of them black, so that padding shows."""
    return rng.integers(1, 256, (n, h, w, c), np.uint8)


def test_pixel_table_is_the_formula(rng: np.random.Generator) -> None:
    images = rng.integers(0, 256, (4, 5, 6, 3), np.uint8)
    mean, std = np.array([0.4, 0.5, 0.6]), np.array([0.2, 0.25, 0.3])
    expected = (images / 255 - mean) / std
    got = gather_batch(images, np.arange(4), pixel_table(mean, std))
    assert got.dtype == np.float32
    np.testing.assert_allclose(got, expected, rtol=FLOAT32, atol=FLOAT32)
    exact = gather_batch(images, np.arange(4), pixel_table(mean, std, np.float64))
    np.testing.assert_array_equal(exact, expected)


@settings(max_examples=60)
@given(
    n=st.integers(1, 9),
    h=st.integers(1, 9),
    w=st.integers(1, 9),
    c=st.integers(1, 4),
    pad=st.integers(0, 5),
    flip=st.booleans(),
    reflect=st.booleans(),
    alternate=st.booleans(),
    cutout=st.integers(0, 12),
    key=st.tuples(*[st.integers(0, 2**b - 1) for b in (64, 32, 64)]),
    dtype=st.sampled_from([np.float32, np.float64]),
)
def test_twin_equals_reference_to_the_bit(
    n: int, h: int, w: int, c: int, dtype: Any, key: Any, **how: Any
) -> None:
    rng = np.random.default_rng(n * 1000 + h * 100 + w * 10 + c)
    if how["reflect"]:
        how["pad"] = min(how["pad"], h - 1, w - 1)
    images, indices = pictures(rng, n, h, w, c), rng.integers(0, n, rng.integers(0, 6))
    table = pixel_table(np.full(c, 0.4), np.full(c, 0.3), dtype)
    named = dict(zip(("seed", "stream", "step"), key))
    with ran() as log:
        fast = augment_batch(images, indices, table, **how, **named)
        plain = gather_batch(images, indices, table)
    assert log == [("augment_batch", TWIN), ("gather_batch", TWIN)]
    with reference():
        slow = augment_batch(images, indices, table, **how, **named)
        np.testing.assert_array_equal(plain, gather_batch(images, indices, table))
    assert fast.dtype == slow.dtype == dtype
    np.testing.assert_array_equal(fast, slow)


def test_other_memory_orders_get_the_reference(rng: np.random.Generator) -> None:
    images = pictures(rng, 8)
    for odd, same in (
        (images[::2], images[::2].copy()),
        (images[:, :, ::-1], images[:, :, ::-1].copy()),
    ):
        indices = np.arange(len(odd))
        with ran() as log:
            got = augment_batch(odd, indices, TABLE, pad=4, flip=True, seed=1)
        assert log[0] == ("augment_batch", "reference")
        np.testing.assert_array_equal(
            got, augment_batch(same, indices, TABLE, pad=4, flip=True, seed=1)
        )


def test_without_augmentation_it_only_gathers(rng: np.random.Generator) -> None:
    images, indices = pictures(rng, 6), np.array([5, 0, 0, 3])
    np.testing.assert_array_equal(
        augment_batch(images, indices, TABLE, seed=4), gather_batch(images, indices, TABLE)
    )


def test_every_crop_is_a_window_of_the_padded_image_and_all_occur(rng: np.random.Generator) -> None:
    n, pad = 4000, 2
    images = np.broadcast_to(pictures(rng, 1, 6, 7), (n, 6, 7, 3)).copy()
    padded = np.pad(images[0], ((pad, pad), (pad, pad), (0, 0)))  # black before normalisation
    windows = {}
    for top in range(2 * pad + 1):
        for left in range(2 * pad + 1):
            window = TABLE[padded[top : top + 6, left : left + 7], np.arange(3)]
            windows[window.tobytes()] = (top, left, False)
            windows[window[:, ::-1].tobytes()] = (top, left, True)
    got = augment_batch(images, np.arange(n), TABLE, pad=pad, flip=True, seed=11)
    drawn = [windows[image.tobytes()] for image in got]
    counts = np.array([drawn.count(kind) for kind in windows.values()])
    expected = n / len(windows)
    chi2 = (
        (counts - expected) ** 2 / expected
    ).sum()  # 49 degrees of freedom: mean 49, deviation 9.9
    assert len(windows) == 50
    assert chi2 < 49 + 4 * 9.9


def test_the_cut_out_is_a_clipped_square_of_the_mean_centred_everywhere(
    rng: np.random.Generator,
) -> None:
    n, side, size = 3000, 3, 8
    images = np.broadcast_to(pictures(rng, 1, size, size), (n, size, size, 3)).copy()
    got = augment_batch(images, np.arange(n), TABLE, cutout=side, seed=2)
    plain = gather_batch(images, np.arange(n), TABLE)
    cut = (got == 0).all(axis=3)
    np.testing.assert_array_equal(got[~cut], plain[~cut])
    squares = {}
    for y in range(size):
        for x in range(size):
            square = np.zeros((size, size), bool)
            square[max(y - 1, 0) : y + 2, max(x - 1, 0) : x + 2] = True
            squares[square.tobytes()] = (y, x)
    assert {squares[mask.tobytes()] for mask in cut} == set(squares.values())


def test_a_cut_out_larger_than_the_image_can_leave_nothing(rng: np.random.Generator) -> None:
    images = pictures(rng, 3, 4, 4)
    assert not augment_batch(images, np.arange(3), TABLE, cutout=8, seed=0).any()


def test_draws_belong_to_the_image_not_to_the_batch(rng: np.random.Generator) -> None:
    images = pictures(rng, 20)
    settings: Any = {"pad": 4, "flip": True, "cutout": 8, "seed": 3, "stream": 9, "step": 5}
    whole = augment_batch(images, np.arange(20), TABLE, **settings)
    order = rng.permutation(20)
    np.testing.assert_array_equal(augment_batch(images, order, TABLE, **settings), whole[order])
    for i in (0, 7, 19):
        np.testing.assert_array_equal(
            augment_batch(images, np.array([i]), TABLE, **settings)[0], whole[i]
        )


@pytest.mark.parametrize("change", [{"seed": 1}, {"stream": 1}, {"step": 1}])
def test_another_seed_stream_or_step_is_another_draw(
    change: dict[str, int], rng: np.random.Generator
) -> None:
    images = pictures(rng, 16)
    key = {"seed": 0, "stream": 0, "step": 0}
    one = augment_batch(images, np.arange(16), TABLE, pad=4, **key)
    other = augment_batch(images, np.arange(16), TABLE, pad=4, **(key | change))
    assert (one != other).any(axis=(1, 2, 3)).sum() >= 14


def test_flips_follow_the_top_bit_of_the_third_word(rng: np.random.Generator) -> None:
    images = pictures(rng, 64, 4, 4)
    got = augment_batch(images, np.arange(64), TABLE, flip=True, seed=6, stream=1, step=2)
    plain = gather_batch(images, np.arange(64), TABLE)
    flipped = bits(Key(6, 1, 2), 4 * 64).reshape(64, 4)[:, 2] >> 31 == 1
    np.testing.assert_array_equal(
        got, np.where(flipped[:, None, None, None], plain[:, :, ::-1], plain)
    )
    assert 20 < flipped.sum() < 44


def test_alternating_flips_show_every_image_both_ways_in_two_steps(rng: np.random.Generator):
    images, everything = pictures(rng, 64, 4, 4), np.arange(64)
    plain = gather_batch(images, everything, TABLE)
    shown = []
    for step in range(4):
        got = augment_batch(images, everything, TABLE, alternate=True, seed=6, step=step)
        flipped = (got == plain[:, :, ::-1]).all(axis=(1, 2, 3))
        np.testing.assert_array_equal(got[~flipped], plain[~flipped])
        shown.append(flipped)
    np.testing.assert_array_equal(shown[0], ~shown[1])
    np.testing.assert_array_equal(shown[:2], shown[2:])
    assert 20 < shown[0].sum() < 44


def test_reflected_shifts_are_windows_of_the_reflected_image(rng: np.random.Generator) -> None:
    n, pad = 300, 2
    images = np.broadcast_to(pictures(rng, 1, 6, 7), (n, 6, 7, 3)).copy()
    padded = np.pad(images[0], ((pad, pad), (pad, pad), (0, 0)), mode="reflect")
    windows = {
        TABLE[padded[top : top + 6, left : left + 7], np.arange(3)].tobytes()
        for top in range(2 * pad + 1)
        for left in range(2 * pad + 1)
    }
    got = augment_batch(images, np.arange(n), TABLE, pad=pad, reflect=True, seed=11)
    assert {image.tobytes() for image in got} == windows


def test_reflection_needs_a_larger_image(rng: np.random.Generator) -> None:
    with pytest.raises(ValueError, match=r"pad is 4 but must be below .*\(2, 4, 9, 3\)"):
        augment_batch(pictures(rng, 2, 4, 9), np.arange(2), TABLE, pad=4, reflect=True, seed=0)


def test_an_empty_batch_is_empty(rng: np.random.Generator) -> None:
    nothing = np.empty(0, np.int64)
    assert gather_batch(pictures(rng, 2), nothing, TABLE).shape == (0, 32, 32, 3)
    assert augment_batch(pictures(rng, 2), nothing, TABLE, pad=4, seed=0).shape == (0, 32, 32, 3)


@pytest.mark.parametrize("kernel", [gather_batch, augment_batch])
@pytest.mark.parametrize("slow", [False, True])
def test_what_does_not_fit_is_refused(kernel: Any, slow: bool, rng: np.random.Generator) -> None:
    images, first = pictures(rng, 4), np.array([0])
    key = {"seed": 0} if kernel is augment_batch else {}

    def call(*arrays: Any) -> Any:
        if not slow:
            return kernel(*arrays, **key)
        with reference():
            return kernel(*arrays, **key)

    with pytest.raises(IndexError, match=r"index 4 must be 0 to 3"):
        call(images, np.array([1, 4]), TABLE)
    with pytest.raises(IndexError, match=r"index -1 must be 0 to 3"):
        call(images, np.array([1, -1]), TABLE)
    with pytest.raises(ValueError, match=r"images must be uint8 \(n, h, w, c\), got float32"):
        call(images.astype(np.float32), first, TABLE)
    with pytest.raises(
        ValueError, match=r"images must be uint8 \(n, h, w, c\), got uint8 \(32, 32, 3\)"
    ):
        call(images[0], first, TABLE)
    with pytest.raises(ValueError, match=r"table must be \(256, 3\) .* got \(256, 1\)"):
        call(images, first, TABLE[:, :1])
