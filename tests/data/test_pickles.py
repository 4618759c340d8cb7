"""The restricted pickle reader: official files come out whole; nothing is ever called."""

from __future__ import annotations

import io
import os
import pickle
import pickletools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from minires.data.pickles import read_pickle
from minires.errors import DataError
from tests.data.synthetic import python2_pickle

__all__: list[str] = []


@pytest.fixture
def content(rng: np.random.Generator) -> dict[str, Any]:
    """A small batch file."""
    return {
        "batch_label": "training batch 1 of 5",
        "labels": [6, 9, 0],
        "data": rng.integers(0, 256, (3, 3072), np.uint8),
        "filenames": ["leptodactylus_pentadactylus_s_000004.png", "caf\xe9.png", "x.png"],
    }


def read(tmp_path: Path, raw: bytes) -> dict[str, Any]:
    """Write `raw` to a file and read it as a pickle."""
    path = tmp_path / "data_batch_1"
    path.write_bytes(raw)
    return read_pickle(path)


def assert_equal(found: dict[str, Any], content: dict[str, Any]) -> None:
    """The same keys and values, the array of bytes."""
    assert found.keys() == content.keys()
    assert found["data"].dtype == np.uint8
    np.testing.assert_array_equal(found["data"], content["data"])
    assert found["labels"] == content["labels"]


def test_the_official_format(tmp_path: Path, content: dict[str, Any]) -> None:
    raw = python2_pickle(content)
    assert not [o for o, _, _ in pickletools.genops(raw) if o.name == "BINUNICODE"]
    theirs = pickle.loads(raw, encoding="bytes")  # the emulation is one that the original reads
    np.testing.assert_array_equal(theirs[b"data"], content["data"])
    found = read(tmp_path, raw)
    assert_equal(found, content)
    assert found["filenames"] == content["filenames"]


@pytest.mark.parametrize("protocol", range(5))
@pytest.mark.parametrize("as_bytes", [False, True])
def test_what_python_3_writes(
    protocol: int, as_bytes: bool, tmp_path: Path, content: dict[str, Any]
) -> None:
    written = {k.encode(): v for k, v in content.items()} if as_bytes else content
    assert_equal(read(tmp_path, pickle.dumps(written, protocol)), content)


def test_fortran_order_and_integer_labels(tmp_path: Path) -> None:
    content = {
        "data": np.asfortranarray(np.arange(12, dtype=np.uint8).reshape(3, 4)),
        "labels": [0],
    }
    assert_equal(read(tmp_path, pickle.dumps(content, 2)), content)
    for dtype in (np.int32, np.int64):
        labels = np.array([3, -1], dtype)
        np.testing.assert_array_equal(read(tmp_path, pickle.dumps({"a": labels}, 2))["a"], labels)


class Call:
    """Pickles to a call of `function`."""

    def __init__(self, function: Callable[..., Any], *arguments: Any) -> None:
        self.reduced = function, arguments

    def __reduce__(self) -> Any:
        return self.reduced


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("wrap", [lambda call: call, lambda call: {"data": [call]}])
def test_a_malicious_pickle_runs_nothing(protocol: int, wrap: Any, tmp_path: Path) -> None:
    victim = tmp_path / "made by the pickle"
    calls = [
        Call(os.system, f"touch '{victim}'"),
        Call(os.mkdir, str(victim)),
        Call(eval, f"__import__('os').mkdir({str(victim)!r})"),
        Call(getattr, "a", "upper"),
        Call(np.fromstring, "1"),
        Call(io.FileIO, str(victim), "w"),
    ]
    for call in calls:
        with pytest.raises(
            DataError, match=r"data_batch_1: not a readable CIFAR pickle: it asks for \S+, "
        ):
            read(tmp_path, pickle.dumps(wrap(call), protocol))
        assert not victim.exists()


@pytest.mark.parametrize("raw", [
    b"\x80\x02cos\nsystem\n(U\x04trueR.",
    b"(U\x04trueios\nsystem\n.",  # INST
    b"\x80\x02(cos\nsystem\nU\x04trueo.",  # OBJ
    b"\x80\x04\x8c\x05posix\x8c\x06system\x93.",  # STACK_GLOBAL
    b"\x80\x04\x8c\x05numpy\x8c\x0cndarray.view\x93.",  # dotted names
    b"\x80\x02\x82\x01.",  # an extension code
    b"Pname\n.",  # a persistent id
    b"\x80\x05\x97.",  # a buffer from outside
    b"\x80\x02cnumpy\ndtype\nU\x01O\x85R.",  # objects in arrays
    b"\x80\x02cnumpy\ndtype\nU\x02u1\x85R(K\x03U\x01>tb.",  # other byte orders
    b"\x80\x02]q\x00.",  # no dict
    b"\x80\x02}.trailing bytes are ignored"[:3],
    b"", b"\x80", b"\x80\x63", b"not a pickle", b"\x00" * 100,
])  # fmt: skip
def test_other_pickles_are_one_line_errors(raw: bytes, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="data_batch_1: ") as caught:
        read(tmp_path, raw)
    assert "\n" not in str(caught.value)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=300)
@given(data=st.data())
def test_damaged_files_give_a_dict_or_a_data_error(
    data: st.DataObject, tmp_path: Path, content: dict[str, Any]
) -> None:
    raw = bytearray(python2_pickle(content | {"data": content["data"][:, :20]}))
    for _ in range(data.draw(st.integers(1, 4))):
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    raw = raw[: data.draw(st.integers(0, len(raw)))] if data.draw(st.booleans()) else raw
    try:
        found: Any = read(tmp_path, bytes(raw))
    except DataError as error:
        found = {"error": str(error).splitlines()}
        assert len(found["error"]) == 1
    assert isinstance(found, dict)
