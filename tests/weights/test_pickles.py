"""Pickles that would run code, hang or eat memory: refused by name, nothing called."""

from __future__ import annotations

import builtins
import io
import os
import pickle
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from minires.errors import DataError
from minires.weights import load_file, pickles
from minires.weights.pickles import read_pickle
from minires.weights.vocabulary import Inert

from .builders import Call, Global, encoded, legacy_bytes, pickled, zip_bytes

__all__: list[str] = []


def read(raw: bytes) -> Any:
    return read_pickle(io.BytesIO(raw), len(raw), "x.pt")[0]


class Runs:
    """Python's pickle of this calls `function` when it is loaded."""

    def __init__(self, function: Callable, *arguments: Any):
        self.made_by = function, arguments

    def __reduce__(self) -> tuple:
        return self.made_by


EVIL = {
    "posix.system": lambda mark: Runs(os.system, f"touch {mark}"),
    "builtins.eval": lambda mark: Runs(builtins.eval, f"open({str(mark)!r}, 'w')"),
    "builtins.exec": lambda mark: Runs(builtins.exec, f"open({str(mark)!r}, 'w')"),
    "builtins.getattr": lambda mark: Runs(getattr, mark, "touch"),
}


@pytest.mark.skipif(os.name == "nt", reason="the names are POSIX's")
@pytest.mark.parametrize("wrap", [zip_bytes, legacy_bytes], ids=["zip", "legacy"])
@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize("name", EVIL)
def test_nothing_is_run(name: str, protocol: int, wrap: Callable, tmp_path: Path):
    mark, path = tmp_path / "it ran", tmp_path / "evil.pth"
    raw = pickle.dumps({"state_dict": EVIL[name](mark)}, protocol)
    path.write_bytes(wrap(raw, {}))
    shown = name if protocol > 2 else name.replace("builtins", "__builtin__")
    with pytest.raises(DataError, match=rf"evil\.pth: (asks for {shown},|pickle opcode|damaged)"):
        load_file(path)
    if protocol >= 2:
        with pytest.raises(DataError, match=f"asks for {shown}, no part of weights"):
            load_file(path)
    assert not mark.exists()


def test_every_way_to_a_call_is_closed():
    system = encoded(Global("os.system"))
    for body in (
        b"(S'touch it'\nios\nsystem\n.",  # INST
        b"(" + system + b"S'touch it'\no.",  # OBJ
        b"\x82\x01.",  # EXT1
        b"\x8c\x02os\x8c\x06system\x93.",  # STACK_GLOBAL
        encoded(Call("os.system", ("touch it",))) + b".",
        system + b")\x81.",  # NEWOBJ
        b"Pos.system\n.",  # PERSID
        b"\x97.",  # NEXT_BUFFER
    ):
        with pytest.raises(DataError, match=r"x\.pt: "):
            read(body)


def test_known_names_are_never_looked_up():
    """The harmless ones leave a name behind, whatever they are asked to do."""
    assert read(pickled(Call("argparse.Namespace", ()))) == Inert("argparse.Namespace")
    assert read(encoded(Global("builtins.int")) + b")\x81}b.") == Inert("builtins.int")
    assert read(pickled(Call("torch.Size", ((2, 3),)))) == (2, 3)
    pairs = [["a", 1], ["b", 2]]
    assert read(pickled(Call("collections.OrderedDict", (pairs,)))) == {"a": 1, "b": 2}


@pytest.mark.parametrize("protocol", range(6))
def test_plain_values_survive(protocol: int):
    value = {"a": [1, -2, 2**40, 0.5, None], "b": {"c": (True, False), "d": ("x", "é")}, "e": ()}
    assert read(pickle.dumps(value, protocol)) == value
    shared = [1]
    assert read(pickle.dumps([shared, shared], protocol)) == [[1], [1]]


def test_numpy_and_sets_are_harmless():
    for protocol in range(2, 6):
        value = {"best": np.float64(0.5), "matrix": np.eye(3), "seen": {1, 2}, "name": "x"}
        assert read(pickle.dumps(value, protocol))["name"] == "x"


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b".",
        b"t.",
        b"u.",
        b"a.",
        b"h\x05.",
        b"K\x01K\x02a.",
        b"]K\x01s.",
        b"K\x01}b.",
        b"K\x01)R.",
        b"}K\x01Q.",
        b"]]K\x01s.",
        encoded(Call("torch._utils._rebuild_tensor_v2", ())) + b".",
        encoded(Call("torch._utils._rebuild_parameter", ())) + b".",
        encoded(Call("torch._utils._rebuild_tensor_v2", (1, 2, 3, 4))) + b".",
        encoded(Call("torch._tensor._rebuild_from_type_v2", (1, 2, 3, 4))) + b".",
        encoded(Call("torch._tensor._rebuild_from_type_v2", (1,))) + b".",
        encoded(Call("collections.OrderedDict", (5,))) + b".",
        encoded(Call("torch.Size", ())) + b".",
        b"\xff.",
        b"X\xff\xff\xff\xffabc.",
        b"\x8b\xff\xff\xff\xff.",
    ],
)
def test_damaged_streams(body: bytes):
    with pytest.raises(DataError, match=r"^x\.pt: [^\n]*$"):
        read(body)


@pytest.mark.parametrize(
    "body",
    [
        b"N" + b"r\xff\xff\xff\x7f" + b".",  # Python's own would reserve 32 GB of memo
        b"\x8e" + (2**40).to_bytes(8, "little") + b"x.",  # bytes that are not there
        b"\x96" + (2**40).to_bytes(8, "little") + b"x.",
        b"\x8d" + (2**40).to_bytes(8, "little") + b"x.",
        b"\x95" + (2**62).to_bytes(8, "little") + b"N.",
    ],
)
def test_claims_cost_no_memory(body: bytes):
    tracemalloc.start()
    try:
        read(body)
    except DataError:
        pass
    finally:
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert peak < 1 << 20


def test_work_is_bounded(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(pickles, "STEP_LIMIT", 1000)
    with pytest.raises(DataError, match="more than 1000 pickle opcodes"):
        read(b"N" * 2000 + b".")
    pairs = encoded([["k", 1]] * 100) + b"q\x000"  # one list, turned into many dictionaries
    again = encoded(Global("collections.OrderedDict")) + b"h\x00\x85R"
    with pytest.raises(DataError, match="more than 1000 pickle opcodes"):
        read(pairs + again * 20 + b".")
    monkeypatch.setattr(pickles, "PICKLE_LIMIT", 50)
    with pytest.raises(DataError, match="damaged"):
        read(pickled("x" * 100))


def test_nests_that_would_take_for_ever():
    nest = b")" + b"2\x86" * 200  # DUP, TUPLE2
    for tail in (b".", b"K\x01s.", b"Q.", b"\x85R.", b"0}" + nest + b"K\x01s."):
        message = ""
        try:
            read(b"}" + nest + tail)
        except DataError as error:
            message = str(error)
        assert len(message) < 300
