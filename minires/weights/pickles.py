"""A reader of the pickles in PyTorch's weight files that can run nothing: it has no calls.

Python's own unpickler, however restricted, imports what it may call and reserves the memory that a
crafted stream names. This one lets `pickletools` cut the stream into opcodes and builds plain
containers, `Storage` and `TensorRef` records; the few functions that PyTorch names are recognised
by their name, never looked up. Any other name is refused.
"""

from __future__ import annotations

import pickletools
import warnings
from typing import Any, BinaryIO

from ..errors import DataError
from .files import show
from .vocabulary import KNOWN, STORAGES, TENSORS, Inert, Storage, TensorRef

__all__ = ["read_pickle"]

PICKLE_LIMIT = 64_000_000  # bytes of one pickle; the numbers are not in it
STEP_LIMIT = 2_000_000  # ResNet-152 with Adam's state takes about 150,000
SCALARS = (str, int, float, bool, bytes, type(None))
TEXTS = ("STRING", "BINSTRING", "SHORT_BINSTRING", "UNICODE", "BINUNICODE", "SHORT_BINUNICODE")
BYTES = ("BINUNICODE8", "BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8")
NUMERALS = ("INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT")
PUSHED = {*TEXTS, *BYTES, *NUMERALS}
CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False, "EMPTY_TUPLE": ()}
EMPTY = {"EMPTY_LIST": list, "EMPTY_DICT": dict, "EMPTY_SET": lambda: Inert("builtins.set")}
MARKED = {"TUPLE": tuple, "LIST": list}  # made of what lies above the mark
TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}


class _Bounded:
    """A file that hands out at most `limit` bytes, whatever a stream claims to need."""

    def __init__(self, file: BinaryIO, limit: int):
        self.file, self.left, self.limit = file, limit, limit

    def tell(self) -> int:
        return self.limit - self.left

    def read(self, count: int) -> bytes:
        return self._spend(self.file.read(max(0, min(count, self.left))))

    def readline(self) -> bytes:
        return self._spend(self.file.readline(self.left))

    def _spend(self, raw: bytes) -> bytes:
        self.left -= len(raw)
        return raw


def read_pickle(file: BinaryIO, size: int, path: object) -> tuple[Any, dict[str, Storage]]:
    """Read the pickle at the file's position, `size` bytes at most: `(object, storages by key)`.

    The file is left behind the pickle. Dictionaries, lists, tuples and scalars come as themselves,
    tensors as `TensorRef`, harmless others as `Inert`. Raises DataError for anything else, naming
    it, and for a damaged stream.

    >>> import io
    >>> read_pickle(io.BytesIO(b"cos\\nsystem\\n."), 13, "evil.pt")
    Traceback (most recent call last):
    minires.errors.DataError: evil.pt: asks for os.system, no part of weights: refused, ...
    """
    machine = _Machine(path)
    position: int | None = 0
    try:
        bounded: Any = _Bounded(file, min(size, PICKLE_LIMIT))
        with warnings.catch_warnings(action="ignore"):  # of odd escapes in damaged text
            for op, argument, place in pickletools.genops(bounded):
                position = place
                machine.step(op.name, argument)
        return machine.stack[-1], machine.storages
    except DataError:
        raise
    except (ValueError, IndexError, KeyError, TypeError, OverflowError, RecursionError) as error:
        raise DataError(
            f"{path}: damaged pickle at byte {position} of it: {show(str(error))}"
        ) from None


class _Machine:
    """The pickle virtual machine without calls; a faulty stream raises what Python raises."""

    def __init__(self, path: object):
        self.path = path
        self.stack: list[Any] = []
        self.marks: list[int] = []
        self.memo: dict[int, Any] = {}
        self.storages: dict[str, Storage] = {}
        self.steps = 0

    def step(self, name: str, argument: Any) -> None:
        """Carry out one opcode."""
        stack = self.stack
        self.steps += 1
        if self.steps > STEP_LIMIT:
            raise DataError(f"{self.path}: more than {STEP_LIMIT} pickle opcodes in one file")
        if name in PUSHED:
            stack.append(argument)
        elif name in CONSTANTS:
            stack.append(CONSTANTS[name])
        elif name in EMPTY:
            stack.append(EMPTY[name]())
        elif name in MARKED:
            stack.append(MARKED[name](self._popped()))
        elif name in TUPLES:
            stack[-TUPLES[name] :] = [tuple(stack[-TUPLES[name] :])]
        elif name in ("BINPUT", "LONG_BINPUT", "PUT"):
            self.memo[argument] = stack[-1]
        elif name in ("BINGET", "LONG_BINGET", "GET"):
            stack.append(self.memo[argument])
        elif name not in ("PROTO", "FRAME", "STOP"):
            action = getattr(self, "_" + name.lower(), None)
            if action is None:
                raise DataError(f"{self.path}: pickle opcode {name} has no place in a weight file")
            action(argument)

    def _popped(self) -> list[Any]:
        """What was pushed since the last mark."""
        mark = self.marks.pop()
        items = self.stack[mark:]
        del self.stack[mark:]
        return items

    def _mark(self, _: Any) -> None:
        self.marks.append(len(self.stack))

    def _pop(self, _: Any) -> None:
        self.stack.pop()

    def _pop_mark(self, _: Any) -> None:
        self._popped()

    def _dup(self, _: Any) -> None:
        self.stack.append(self.stack[-1])

    def _memoize(self, _: Any) -> None:
        self.memo[len(self.memo)] = self.stack[-1]

    def _append(self, _: Any) -> None:
        item = self.stack.pop()
        self._extend([item])

    def _appends(self, _: Any) -> None:
        self._extend(self._popped())

    def _additems(self, _: Any) -> None:
        self._extend(self._popped())

    def _extend(self, items: list[Any]) -> None:
        target = self.stack[-1]
        if isinstance(target, list):
            target.extend(items)
        elif not isinstance(target, Inert):
            raise TypeError(f"appends to a {type(target).__name__}")

    def _dict(self, _: Any) -> None:
        items = self._popped()
        self.stack.append({})
        self._update(items)

    def _setitem(self, _: Any) -> None:
        value, key = self.stack.pop(), self.stack.pop()
        self._update([key, value])

    def _setitems(self, _: Any) -> None:
        self._update(self._popped())

    def _update(self, items: list[Any]) -> None:
        target = self.stack[-1]
        if isinstance(target, Inert):
            return
        if not isinstance(target, dict) or len(items) % 2:
            raise TypeError(f"sets items of a {type(target).__name__}")
        for key, value in zip(items[::2], items[1::2], strict=True):
            if not isinstance(key, SCALARS):  # hashing a crafted nest of tuples takes for ever
                raise DataError(f"{self.path}: a dictionary key is a {type(key).__name__}")
            target[key] = value

    def _global(self, argument: str) -> None:
        module, _, name = argument.partition(" ")
        self._name(f"{module}.{name}")

    def _stack_global(self, _: Any) -> None:
        name, module = self.stack.pop(), self.stack.pop()
        if not isinstance(name, str) or not isinstance(module, str):
            raise TypeError("a global's name is not text")
        self._name(f"{module}.{name}")

    def _name(self, name: str) -> None:
        if name not in KNOWN:
            shown = show(name)[1:-1]
            raise DataError(
                f"{self.path}: asks for {shown}, no part of weights: refused, not run;"
                " save the state_dict alone"
            )
        self.stack.append(Inert(name))

    def _newobj(self, _: Any) -> None:
        self._reduce(_)

    def _reduce(self, _: Any) -> None:
        arguments, function = self.stack.pop(), self.stack.pop()
        if function == Inert("torch._tensor._rebuild_from_type_v2"):
            function, _, arguments, _ = arguments  # the others: the tensor's class, its attributes
        if not isinstance(function, Inert) or not isinstance(arguments, tuple):
            raise TypeError(f"calls a {type(function).__name__}")
        self._made(function.name, arguments)

    def _made(self, name: str, arguments: tuple[Any, ...]) -> None:
        """Push what the named function would have returned."""
        if name == "collections.OrderedDict":
            self.stack.append({})
            for key, value in arguments[0] if arguments else ():  # pairs: Python 2 wrote it so
                self.steps += 1
                self._update([key, value])
        elif name == "torch.Size":
            self.stack.append(arguments[0])
        elif TENSORS.get(name) == 4:
            storage, offset, shape, stride = arguments[:4]
            if not isinstance(storage, Storage):
                raise TypeError(f"a tensor's storage is a {type(storage).__name__}")
            self.stack.append(TensorRef(storage, offset, shape, stride))
        elif TENSORS.get(name) == 1:
            self.stack.append(arguments[0])
        else:
            self.stack.append(Inert(name))

    def _build(self, _: Any) -> None:
        self.stack.pop()  # attributes such as OrderedDict's _metadata: not wanted
        if not isinstance(self.stack[-1], (dict, Inert, TensorRef)):
            raise TypeError(f"sets attributes of a {type(self.stack[-1]).__name__}")

    def _binpersid(self, _: Any) -> None:
        """("storage", type, key, location, count[, view]); view is None or (key, start, count)."""
        identity = self.stack.pop()
        if not isinstance(identity, tuple) or len(identity) < 5 or identity[0] != "storage":
            raise TypeError(f"persistent id {show(identity)}")
        kind, key, count = identity[1], identity[2], identity[4]
        code = STORAGES.get(kind.name.removeprefix("torch.")) if isinstance(kind, Inert) else None
        if code is None or not isinstance(key, str) or type(count) is not int or count < 0:
            raise TypeError(f"storage {show(identity)}")
        whole = self.storages.setdefault(key, Storage(code, key, count))
        if (whole.code, whole.count) != (code, count):
            raise DataError(f"{self.path}: storage {show(key)} is described in two ways")
        view = identity[5] if len(identity) > 5 else None
        start = 0 if view is None else view[1]
        if type(start) is not int or not 0 <= start <= count:
            raise TypeError(f"storage {show(identity)}")
        self.stack.append(Storage(code, key, count, start))
