"""Functions on vectors of float32, written as LLVM instructions.

Numba leaves it to LLVM which values of a loop stay in registers and which loads become broadcasts;
for a product or a Winograd transform it chooses badly. Here a function's body says so itself: it is
Python code that runs once, while the kernel is compiled, and puts one LLVM instruction after
another. Loops over `range` in a body are therefore unrolled, and matrices of constants become part
of the instructions.

    @vector_function(width=16)
    def double(lanes, source, to):
        x = lanes.load(source)
        lanes.store(lanes.add(x, x), to)

makes `double(source, to)`, to be called from compiled code with the addresses of 16 float32 each.
All arguments are int64: addresses, sizes, and distances in bytes.

Source: the LLVM language reference, https://llvm.org/docs/LangRef.html.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from llvmlite import binding as llvm
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic as _intrinsic

__all__ = [
    "LINE",
    "STREAM",
    "Lanes",
    "add_at",
    "add_vectors",
    "clear_vector",
    "copy_vector",
    "exchange_at",
    "finish_streams",
    "float_of_bits",
    "read_address",
    "read_float",
    "vector_function",
    "write_address",
    "write_float",
]

llvm.initialize_native_asmparser()  # one instruction is written as assembly
FLOAT = ir.FloatType()
INT32 = ir.IntType(32)
INT64 = ir.IntType(64)
BIT = ir.IntType(1)
intrinsic: Any = _intrinsic  # a decorator that takes the first parameter away
LINE = 64  # bytes of a cache line
STREAM = 1 << 23  # bytes: outputs of at least so many are written past the caches
NUMBER_ALIGNED = 4  # bytes: vectors may start at any float32


class Lanes:
    """The instructions, for vectors of `width` lanes, that a function's body puts together."""

    def __init__(self, builder: ir.IRBuilder, width: int, streams: bool = False) -> None:
        self.builder, self.width, self.streams = builder, width, streams
        self.type = ir.VectorType(FLOAT, width)
        self._bits = ir.VectorType(BIT, width)

    # -- addresses

    def offset(self, address: Any, distance: Any) -> Any:
        """The address `distance` bytes on; a distance is a Python int or an int64 value."""
        if isinstance(distance, int):
            if distance == 0:
                return address
            distance = INT64(distance)
        return self.builder.add(address, distance)

    def steps(self, address: Any, distance: Any, count: int) -> list[Any]:
        """The addresses `address`, `address + distance`, …: `count` of them."""
        return [
            self.offset(address, self.builder.mul(distance, INT64(i)) if i else 0)
            for i in range(count)
        ]

    def address(self, table: Any, index: int) -> Any:
        """Entry `index` of a table of addresses."""
        entry = self.offset(table, 8 * index)
        return self.builder.load(self.builder.inttoptr(entry, INT64.as_pointer()), align=8)

    # -- memory

    def load(self, address: Any, mask: Any = None) -> Any:
        """The vector at an address; lanes outside `mask` read nothing and are zero."""
        place: Any = self.builder.inttoptr(address, self.type.as_pointer())
        if mask is None:
            return self.builder.load(place, align=NUMBER_ALIGNED)
        kind = ir.FunctionType(self.type, [place.type, INT32, self._bits, self.type])
        name = f"llvm.masked.load.v{self.width}f32.p0"
        arguments = [place, INT32(NUMBER_ALIGNED), mask, self.constant(0.0)]
        return self.call(name, kind, arguments)

    def store(self, x: Any, address: Any, mask: Any = None) -> None:
        """Write a vector; lanes outside `mask` leave memory as it is."""
        place: Any = self.builder.inttoptr(address, self.type.as_pointer())
        if mask is None:
            self.builder.store(x, place, align=NUMBER_ALIGNED)
            return
        kind = ir.FunctionType(ir.VoidType(), [self.type, place.type, INT32, self._bits])
        name = f"llvm.masked.store.v{self.width}f32.p0"
        self.call(name, kind, [x, place, INT32(NUMBER_ALIGNED), mask])

    def store_halves(self, x: Any, address: Any, mask: Any) -> None:
        """Write the lanes of a vector of 16-bit integers that are in `mask`."""
        place: Any = self.builder.inttoptr(address, x.type.as_pointer())
        kind = ir.FunctionType(ir.VoidType(), [x.type, place.type, INT32, self._bits])
        self.call(f"llvm.masked.store.v{self.width}i16.p0", kind, [x, place, INT32(2), mask])

    def stream(self, x: Any, address: Any) -> None:
        """Write a vector past the caches, to an address that is a multiple of the vector's size;
        other threads may read it after `finish_streams`. A cache line should be written in one go:
        half of one has to wait for what it is to be joined with.
        """
        place: Any = self.builder.inttoptr(address, self.type.as_pointer())
        instruction: Any = self.builder.store(x, place, align=4 * self.width)
        instruction.set_metadata("nontemporal", self.builder.module.add_metadata([INT32(1)]))

    def prefetch(self, address: Any) -> None:
        """Begin to read the cache line of an address; that may be anywhere."""
        place: Any = self.builder.inttoptr(address, ir.IntType(8).as_pointer())
        kind = ir.FunctionType(ir.VoidType(), [place.type, INT32, INT32, INT32])
        reading, nearest, data = INT32(0), INT32(3), INT32(1)
        self.call("llvm.prefetch.p0", kind, [place, reading, nearest, data])

    def put_out(self, x: Any, address: Any) -> None:
        """Write a vector of an output: `stream` it where the function `streams`."""
        self.stream(x, address) if self.streams else self.store(x, address)

    def broadcast(self, address: Any) -> Any:
        """The one number at an address, in every lane."""
        place = self.builder.inttoptr(address, FLOAT.as_pointer())
        return self.every_lane(self.builder.load(place, align=NUMBER_ALIGNED), self.type)

    def first(self, count: Any) -> Any:
        """The mask of the first `count` lanes; None, for all of them, when count is None."""
        if count is None:
            return None
        numbers = ir.VectorType(INT32, self.width)
        limit = self.every_lane(self.builder.trunc(count, INT32), numbers)
        lane = ir.Constant(numbers, list(range(self.width)))
        return self.builder.icmp_unsigned("<", lane, limit)

    # -- arithmetic

    def constant(self, value: float) -> Any:
        """The same number in every lane."""
        return ir.Constant(self.type, [float(value)] * self.width)

    def add(self, x: Any, y: Any) -> Any:
        """x + y"""
        return self.builder.fadd(x, y)

    def sum(self, vectors: list[Any]) -> Any:
        """The sum of vectors, in pairs, and pairs of pairs."""
        while len(vectors) > 1:
            pairs = zip(vectors[::2], vectors[1::2])
            vectors = [self.add(x, y) for x, y in pairs] + vectors[len(vectors) // 2 * 2 :]
        return vectors[0]

    def subtract(self, x: Any, y: Any) -> Any:
        """x - y"""
        return self.builder.fsub(x, y)

    def multiply(self, x: Any, y: Any) -> Any:
        """x · y"""
        return self.builder.fmul(x, y)

    def multiply_add(self, x: Any, y: Any, z: Any) -> Any:
        """x · y + z with one rounding."""
        kind = ir.FunctionType(self.type, [self.type] * 3)
        return self.call(f"llvm.fma.v{self.width}f32", kind, [x, y, z])

    def multiply_add_pairs(self, x: Any, y: Any, z: Any) -> Any:
        """x0 · y0 + x1 · y1 + z, where each lane of x and y is a pair of bf16 (AVX512_BF16).

        As assembly, because LLVM's name for it takes other types in each version.
        """
        kind = ir.FunctionType(self.type, [self.type] * 3)
        text = "vdpbf16ps $2, $1, $0"
        return self.builder.call(ir.InlineAsm(kind, text, "=v,v,v,0", side_effect=False), [x, y, z])

    def larger(self, x: Any, y: Any) -> Any:
        """The larger of x and y; where x is NaN, NaN."""
        return self.builder.select(self.builder.fcmp_ordered("<", x, y), y, x)

    def where_positive(self, condition: Any, x: Any) -> Any:
        """x where `condition` is above 0, else 0."""
        zero = self.constant(0.0)
        return self.builder.select(self.builder.fcmp_ordered(">", condition, zero), x, zero)

    def every_lane(self, number: Any, kind: ir.VectorType) -> Any:
        """A vector of any kind with the same number in every lane."""
        undefined = ir.Constant(kind, ir.Undefined)
        one = self.builder.insert_element(undefined, number, INT32(0))
        zeros = ir.Constant(ir.VectorType(INT32, kind.count), [0] * kind.count)
        return self.builder.shuffle_vector(one, undefined, zeros)

    def pick(self, x: Any, y: Any, numbers: list[int]) -> Any:
        """The lanes with these numbers, of x and then of y."""
        return self.builder.shuffle_vector(
            x, y, ir.Constant(ir.VectorType(INT32, self.width), numbers)
        )

    def call(self, name: str, kind: ir.FunctionType, arguments: list[Any]) -> Any:
        function = cgutils.get_or_insert_function(self.builder.module, kind, name)
        return self.builder.call(function, arguments)


def vector_function(
    width: int, optional: bool = False, streams: bool = False
) -> Callable[[Callable[..., None]], Any]:
    """Decorate `body(lanes, *int64s)`: compiled code calls it with the int64s alone.

    The body's parameters with a default value are left out, or all taken with `optional`. With
    `streams`, its `put_out` writes past the cache.
    """

    def decorate(body: Callable[..., None]) -> Any:
        def typing(*arguments):
            def generate(context, builder, _, values):
                body(Lanes(builder, width, streams), *values)
                return context.get_dummy_value()

            return types.void(*[types.int64] * (len(arguments) - 1)), generate

        every = inspect.signature(body).parameters.values()
        taken = [p.replace(default=p.empty) for p in every if optional or p.default is p.empty]
        typing.__name__, typing.__doc__ = body.__name__, body.__doc__
        typing.__signature__ = inspect.Signature(taken)  # type: ignore[attr-defined]
        return intrinsic(typing)

    return decorate


@intrinsic
def write_float(_, place, value):
    """Store the float32 `value` at the address `place`."""

    def generate(context, builder, signature, arguments):
        place, value = arguments
        builder.store(value, builder.inttoptr(place, FLOAT.as_pointer()), align=4)
        return context.get_dummy_value()

    return types.void(types.int64, types.float32), generate


@intrinsic
def read_float(_, place):
    """The float32 at the address `place`."""

    def generate(context, builder, signature, arguments):
        return builder.load(builder.inttoptr(arguments[0], FLOAT.as_pointer()), align=4)

    return types.float32(types.int64), generate


@intrinsic
def write_address(_, place, value):
    """Store an address in a table, at the address `place`."""

    def generate(context, builder, signature, arguments):
        place, value = arguments
        builder.store(value, builder.inttoptr(place, INT64.as_pointer()), align=8)
        return context.get_dummy_value()

    return types.void(types.int64, types.int64), generate


@intrinsic
def read_address(_, place):
    """The entry of a table of addresses at the address `place`."""

    def generate(context, builder, signature, arguments):
        return builder.load(builder.inttoptr(arguments[0], INT64.as_pointer()), align=8)

    return types.int64(types.int64), generate


@intrinsic
def add_at(_, place, value):
    """Add to the int64 at an address, in one step for all threads; returns what was there."""

    def generate(context, builder, signature, arguments):
        place, value = arguments
        place = builder.inttoptr(place, INT64.as_pointer())
        return builder.atomic_rmw("add", place, value, "seq_cst")

    return types.int64(types.int64, types.int64), generate


@intrinsic
def exchange_at(_, place, value):
    """Replace the int64 at an address, in one step for all threads; returns what was there."""

    def generate(context, builder, signature, arguments):
        place, value = arguments
        place = builder.inttoptr(place, INT64.as_pointer())
        return builder.atomic_rmw("xchg", place, value, "seq_cst")

    return types.int64(types.int64, types.int64), generate


@intrinsic
def float_of_bits(_, bits):
    """The float32 that the bits of an int32 mean."""

    def generate(context, builder, signature, arguments):
        return builder.bitcast(arguments[0], FLOAT)

    return types.float32(types.int32), generate


def add_vectors(lanes: Lanes, to: Any, x: Any, count: Any = None) -> None:
    """to += x, as the body of a vector function."""
    mask = lanes.first(count)
    lanes.store(lanes.add(lanes.load(to, mask), lanes.load(x, mask)), to, mask)


def finish_streams(lanes: Lanes) -> None:
    """Finish what `Lanes.stream` wrote, as the body of a vector function."""
    lanes.builder.fence("seq_cst")


def copy_vector(lanes: Lanes, to: Any, x: Any, count: Any = None) -> None:
    """to = x, as the body of a vector function."""
    mask = lanes.first(count)
    lanes.store(lanes.load(x, mask), to, mask)


def clear_vector(lanes: Lanes, to: Any, count: Any = None) -> None:
    """to = 0, as the body of a vector function."""
    lanes.store(lanes.constant(0.0), to, lanes.first(count))
