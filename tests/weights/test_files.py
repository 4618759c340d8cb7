"""Values from files are shown short, whatever they are."""

from __future__ import annotations

from pathlib import Path

import pytest

from minires.errors import DataError
from minires.weights.files import open_file, read_exactly, show

__all__: list[str] = []


def test_show_is_short_and_on_one_line():
    nest: tuple = ()
    for _ in range(100):  # its repr has 2**100 characters
        nest = (nest, nest)
    for value in ("a\nb", "x" * 1000, nest, 10**9000, [10**9000], {"k": ["v" * 500] * 500}):
        assert len(show(value)) <= 80
        assert "\n" not in show(value)
    assert show("fc.bias") == "'fc.bias'"


def test_what_cannot_be_read_is_named(tmp_path: Path):
    with pytest.raises(DataError, match="cannot be read: Is a directory"), open_file(tmp_path):
        pass
    (tmp_path / "a").write_bytes(b"1234")
    with open_file(tmp_path / "a") as (file, size):
        assert size == 4
        with pytest.raises(DataError, match="the header needs 4 bytes at 2, the file has 2"):
            read_exactly(file, 2, 4, tmp_path / "a", "the header")
