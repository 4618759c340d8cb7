"""Random numbers and crops of the worker processes, against the rest and their definition."""

from __future__ import annotations

from itertools import islice

import numpy as np
import pytest

from minires.data.task import central_box, crop_box, philox, uniforms
from minires.kernels.random import Key, bits

__all__: list[str] = []


@pytest.mark.parametrize("key", [Key(0), Key(7, 3, 2**33 + 1), Key(2**63 + 5, 0xDA7A_0006, 12)])
def test_philox_is_that_of_the_kernels(key: Key):
    words = [word for block in range(5) for word in philox(*key, block)]
    assert words == bits(key, 20).tolist()


def test_each_picture_has_numbers_of_its_own():
    first, second = (list(uniforms((1, 2, 3, index))) for index in (0, 1))
    assert len(first) == 64
    assert not set(first) & set(second)
    assert list(uniforms((1, 2, 3, 1))) == second
    assert first != list(uniforms((1, 2, 4, 0)))


def test_crops_cover_the_wanted_areas_and_ratios():
    areas, ratios, edges = [], [], []
    for index in range(2000):
        left, top, right, bottom = crop_box(400, 300, 0.08, uniforms((0, 0, 0, index)))
        assert 0 <= left < right <= 400
        assert 0 <= top < bottom <= 300
        areas.append((right - left) * (bottom - top) / 120_000)
        ratios.append((right - left) / (bottom - top))
        edges += [left == 0, right == 400, top == 0, bottom == 300]
    assert min(areas) == pytest.approx(0.08, abs=0.01)
    assert max(areas) > 0.95
    small = [area for area in areas if area < 0.3]  # these fit, whatever their ratio
    assert np.mean(small) == pytest.approx((0.08 + 0.3) / 2, abs=0.01)
    assert min(ratios) == pytest.approx(3 / 4, abs=0.02)
    assert max(ratios) == pytest.approx(4 / 3, abs=0.02)
    assert np.median(ratios) == pytest.approx(1, abs=0.05)  # symmetric in its logarithm
    assert any(edges)


@pytest.mark.parametrize(
    ("size", "box"),
    [((1000, 10), (493, 0, 506, 10)), ((10, 1000), (0, 493, 10, 506)), ((1, 1), (0, 0, 1, 1))],
)
def test_where_no_crop_fits_the_middle_is_taken(size: tuple[int, int], box: tuple[int, ...]):
    assert crop_box(*size, 0.9, uniforms((0, 0, 0, 0))) == box


def test_the_middle():
    assert central_box(160, 80, 0.875) == (45, 5, 115, 75)
    assert len(list(islice(uniforms((0, 0, 0, 0)), 100))) == 64
