"""The one way to run a CUDA kernel: launches that are checked against the kernel's own signature.

    SOURCE = Source("pool.cu")
    SOURCE.launch("largest", *pixel_grid(n * p * q, c), x, y, index, h, w, c, ...)

A raw launch believes whatever it is given: a Python float for a `float` parameter arrives as 0, an
array of another dtype as noise, and of a view that is not contiguous the wrong elements are read,
all without an error. So the parameters are read from the .cu file itself, and a launch refuses a
wrong number of arguments, another dtype, a layout or a device that the kernel does not mean, and
converts plain numbers to the parameter's type.

A .cu file is compiled when one of its kernels first runs, once for each element type `T`, and kept
by CuPy on disk. What it includes is put in place here, so that the text handed to the compiler, and
to CuPy's cache of compiled files, is whole. A launch with an empty grid does nothing.
"""

from __future__ import annotations

import operator
import re
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

__all__ = [
    "MOST_ROWS",
    "THREADS",
    "WARP",
    "CuPy",
    "Parameter",
    "Signature",
    "Source",
    "flat_grid",
    "from_memory",
]
__all__ += ["pixel_grid", "platform", "read_signatures", "read_text", "same_floats"]

FOLDER = Path(__file__).parent
OPTIONS = ("--std=c++17",)
THREADS = 256  # of a block, in all kernels
MOST_ROWS = 2**31 - 2**16  # kernels count pixels in 32 bits, and numbers in 64
WARP = 32

# what the types of parameters are called in the sources
TYPES = {
    "float": np.dtype(np.float32),
    "double": np.dtype(np.float64),
    "int": np.dtype(np.int32),
    "long long": np.dtype(np.int64),
    "unsigned": np.dtype(np.uint32),
    "unsigned long long": np.dtype(np.uint64),
    "unsigned char": np.dtype(np.uint8),
    "unsigned short": np.dtype(np.uint16),
}
ELEMENTS = {np.dtype(np.float32): "float", np.dtype(np.float64): "double"}

REAL = (int, float, np.number)
COMMENT = re.compile(r"//[^\n]*|/\*.*?\*/", re.S)
INCLUDE = re.compile(r'^#include "(\w+\.cuh)"\n', re.M)
KERNEL = re.compile(
    r"(template\s*<typename T>\s*)?__global__\s+void\s+"
    r"(?:__launch_bounds__\((\d+)\)\s*)?(\w+)\s*\(([^)]*)\)"
)


class Parameter(NamedTuple):
    """One parameter of a kernel: its name, its type without `const` and `*`, and what it may be."""

    name: str
    type: str
    pointer: bool
    optional: bool


class Signature(NamedTuple):
    """A kernel as its source declares it."""

    name: str
    generic: bool  # whether it is a template of the element type T
    threads: int  # the most a block may have
    parameters: tuple[Parameter, ...]


def read_text(file: str) -> str:
    """The text of a .cu file of this folder, with what it includes in place, each file once."""
    included: set[str] = set()

    def include(match: re.Match[str]) -> str:
        if match[1] in included:
            return ""
        included.add(match[1])
        return expand((FOLDER / match[1]).read_text(encoding="utf-8"))

    def expand(text: str) -> str:
        return INCLUDE.sub(include, text)

    return expand((FOLDER / file).read_text(encoding="utf-8"))


def _read_parameter(text: str) -> Parameter:
    words = text.replace("*", " * ").split()
    words = [w for w in words if w not in ("const", "__restrict__")]
    optional = "OPTIONAL" in words
    *kind, name = (w for w in words if w not in ("OPTIONAL", "*"))
    found = Parameter(name, " ".join(kind), "*" in words, optional)
    if found.type != "T" and found.type not in TYPES:
        raise ValueError(f"the type {found.type!r} of parameter {name} is none of {[*TYPES, 'T']}")
    return found


def read_signatures(text: str) -> dict[str, Signature]:
    """The kernels of a source, by name.

    >>> read_signatures("__global__ void f(const float* x, int n) {}")["f"].parameters[1]
    Parameter(name='n', type='int', pointer=False, optional=False)
    """
    signatures = {}
    for template, threads, name, declared in KERNEL.findall(COMMENT.sub(" ", text)):
        parameters = tuple(map(_read_parameter, declared.split(",")))
        most = int(threads or 1024)
        signatures[name] = Signature(name, bool(template), most, parameters)
    return signatures


class CuPy:
    """Where kernels run: compiles sources, and knows which arrays are on the current GPU."""

    def build(self, text: str, names: list[str]) -> Any:
        """A module with `get_function(name)`, in which the kernels called `names` are compiled."""
        import cupy  # type: ignore[import-not-found]

        return cupy.RawModule(code=text, options=OPTIONS, name_expressions=names)

    def device_of(self, x: Any) -> int | None:
        """The number of the GPU that holds the array; None if `x` is no such array."""
        return x.data.device_id if type(x).__module__.split(".")[0] == "cupy" else None

    def current_device(self) -> int:
        """The GPU on which a launch runs."""
        import cupy  # type: ignore[import-not-found]

        return cupy.cuda.get_device_id()


platform: Any = CuPy()  # tests put an emulator here


class Source:
    """A .cu file and its kernels."""

    def __init__(self, file: str) -> None:
        self.file = file
        self._functions: dict[Any, Any] = {}
        self._modules: dict[Any, Any] = {}

    @cached_property
    def text(self) -> str:
        """What is compiled."""
        return read_text(self.file)

    @cached_property
    def signatures(self) -> dict[str, Signature]:
        """The kernels in this file."""
        return read_signatures(self.text)

    def names(self, element: str | None) -> list[str]:
        """What the compiler calls the kernels, those of element type T for `element`."""
        names = ((s.name, s.generic) for s in self.signatures.values())
        return [
            f"{n}<{element}>" if generic else n for n, generic in names if element or not generic
        ]

    def launch(self, name: str, grid: tuple[int, ...], block: tuple[int, ...], *args: Any) -> None:
        """Run kernel `name` on a grid of blocks of threads.

        An argument is an array where the parameter is a pointer (None where it is OPTIONAL), else a
        number. Raises TypeError or ValueError for arguments that the kernel does not mean.
        """
        signature = self.signatures[name]
        if len(args) != len(signature.parameters):
            expected = ", ".join(p.name for p in signature.parameters)
            raise TypeError(f"{self._called(name)}: got {len(args)} arguments for ({expected})")
        element, values = self._convert(signature, args)
        if 0 in grid:
            return
        threads = block[0] if len(block) == 1 else block[0] * block[1]
        if not 0 < threads <= signature.threads:
            most = signature.threads
            raise ValueError(f"{self._called(name)}: a block of {block} but at most {most} threads")
        key = platform, name, element
        function = self._functions.get(key)
        if function is None:
            function = self._functions[key] = self._compile(name, element)
        function(grid, block, values)

    def _compile(self, name: str, element: str | None) -> Any:
        key = platform, element
        if key not in self._modules:
            self._modules[key] = platform.build(self.text, self.names(element))
        generic = self.signatures[name].generic
        return self._modules[key].get_function(f"{name}<{element}>" if generic else name)

    def _convert(self, signature: Signature, args: Any) -> tuple[str | None, tuple[Any, ...]]:
        """The element type T, and the arguments as the driver takes them."""
        element, number, device = None, None, platform.current_device()
        if signature.generic:
            given = (a for p, a in zip(signature.parameters, args) if p.pointer and p.type == "T")
            number = next((a.dtype for a in given if hasattr(a, "dtype")), None)
            element = ELEMENTS.get(number)
            if element is None:
                wrong = f"T is float32 or float64, got {number}"
                raise TypeError(f"{self._called(signature.name)}: {wrong}")
        values = []
        for parameter, value in zip(signature.parameters, args):
            dtype = number if parameter.type == "T" else TYPES[parameter.type]
            if parameter.pointer:
                if value is not None or not parameter.optional:
                    self._check_array(signature, parameter, value, dtype, device)
                values.append(value)
            else:
                values.append(self._number(signature, parameter, value, dtype))
        return element, tuple(values)

    def _check_array(
        self, signature: Signature, parameter: Parameter, value: Any, dtype: Any, device: int
    ) -> None:
        where = platform.device_of(value)
        if where == device and value.dtype == dtype and value.flags.c_contiguous:
            return
        if where is None:
            got = type(value).__name__
        elif where != device:
            got = f"one on GPU {where}"
        else:
            layout = "" if value.flags.c_contiguous else ", not contiguous"
            got = f"{value.dtype} {value.shape}{layout}"
        expected = f"a contiguous {dtype} array on GPU {device}"
        called = f"{self._called(signature.name)}: {parameter.name}"
        raise TypeError(f"{called} must be {expected}, got {got}")

    def _number(self, signature: Signature, parameter: Parameter, value: Any, dtype: Any) -> Any:
        try:
            if dtype.kind != "f":
                return dtype.type(operator.index(value))
            if isinstance(value, REAL):  # an array is not read: that would wait for the GPU
                return dtype.type(value)
            error = TypeError()
        except (TypeError, OverflowError) as caught:
            error = caught
        called = f"{self._called(signature.name)}: {parameter.name}"
        if isinstance(error, OverflowError):
            raise ValueError(f"{called} is {value}, which {dtype} cannot hold")
        got = type(value).__name__
        raise TypeError(f"{called} must be a number for {dtype}, got {got}")

    def _called(self, name: str) -> str:
        return f"launch of {name} ({self.file})"


def flat_grid(count: int, each: int = 1) -> tuple[tuple[int], tuple[int]]:
    """Grid and block for `count` pieces of work, of which every thread does `each`.

    >>> flat_grid(1000)
    ((4,), (256,))
    """
    return (-(-count // (THREADS * each)),), (THREADS,)


def pixel_grid(pixels: int, c: int, each: int = 1) -> tuple[tuple[int, int], tuple[int, int]]:
    """Grid and block for the rows (pixels, c) of images: threadIdx.x goes along the channels and
    threadIdx.y along the pixels, of which every thread takes `each`. The blocks of the grid's y are
    side by side along the channels.

    A warp has 32 neighbouring channels, or where there are fewer several whole pixels: what its
    threads read is one piece of memory.

    >>> pixel_grid(1000, 64)
    ((125, 2), (32, 8))
    >>> pixel_grid(1000, 3)
    ((16, 1), (4, 64))
    """
    x = min(WARP, 1 << max(c - 1, 0).bit_length())
    y = THREADS // x
    return (-(-pixels // (y * each)), -(-c // x)), (x, y)


def same_floats(*arrays: Any, **_: Any) -> bool:
    """Whether all arrays, None aside, are float32 or all are float64, and their pixels countable:
    what most twins say that they serve.
    """
    given = [a for a in arrays if a is not None]
    number = given[0].dtype
    return number in ELEMENTS and all(
        a.dtype == number and a.size // max(1, a.shape[-1] if a.ndim else 1) <= MOST_ROWS
        for a in given
    )


def from_memory(value: Any) -> tuple[Any, Any]:
    """The two arguments for a number that changes from step to step: an array on the GPU that the
    kernel reads, so that a recorded launch sees what it holds by then, or the number itself.

    >>> from_memory(0.1)
    (None, 0.1)
    """
    return (None, value) if isinstance(value, REAL) else (value, 0)
