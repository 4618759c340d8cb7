"""Products of matrices on the GPU: cuBLAS, in the precision that `precision` chose, where the
matrices are.

CuPy's own `matmul` copies matrices that are not contiguous and writes 16 bits where it reads 16.
cuBLAS does neither: lines may lie any distance apart, groups of matrices too, so the groups of a
convolution are one call on the arrays as they are, and sums are written as float32.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from .dispatch import array_module
from .launch import THREADS, Source
from .memory import empty
from .precision import operand_kind

__all__ = ["EACH", "multiply", "multiply_into_graph", "narrow", "widened"]

SOURCE = Source("narrow.cu")
EACH = 8  # numbers that a thread rounds

# cudaDataType, and cublasComputeType: in float32, in float64, in TF32
TYPES = {"float32": 0, "float64": 1, "float16": 2, "uint16": 14}
SUM32, SUM64, FAST_TF32 = 68, 70, 77
ANY_ALGORITHM = -1
WORKSPACE = 1 << 25  # bytes for cuBLAS in a graph: what NVIDIA advises for its largest GPUs


def widened(x: np.ndarray) -> np.ndarray:
    """An array of operands as float32, or the float array itself.

    >>> widened(np.array([0x3F80, 0xC040], np.uint16)).tolist()
    [1.0, -3.0]
    """
    if x.dtype == np.uint16:
        return (x.astype(np.uint32) << np.uint32(16)).view(np.float32)
    return x.astype(np.float32) if x.dtype == np.float16 else x


def narrow(dtype: np.dtype, x: Any, x2: Any = None) -> tuple[Any, Any]:
    """One or two contiguous float32 arrays as operands of this dtype, in one launch; themselves
    where they have it.
    """
    if x.dtype == dtype:
        return x, x2
    y, y2 = (a if a is None else empty(a.shape, dtype, like=a) for a in (x, x2))
    n2 = 0 if x2 is None else x2.size
    blocks = -(-x.size // (THREADS * EACH)) - (-n2 // (THREADS * EACH))
    bits = (a if a is None else a.view(np.uint16) for a in (y, y2))
    SOURCE.launch(
        *("narrow", (blocks,), (THREADS,), x, next(bits), x.size, x2, next(bits), n2),
        *(dtype == np.uint16, EACH),
    )
    return y, y2


def multiply(a: Any, b: Any, out: Any, *, add: bool = False) -> None:
    """out = a @ b, or out += a @ b with `add`: a (groups, m, k), b (groups, k, n), out (groups, m,
    n).

    One axis of each matrix must be contiguous, the last one of `out`. a and b are of out's dtype
    (float32, float64), or operands that `narrow` made of float32.
    """
    if isinstance(out, np.ndarray):
        c = np.matmul(widened(a), widened(b))
        out[...] = out + c if add else c
        return
    groups, m, n = out.shape
    k, compute = a.shape[2], SUM64 if out.dtype == np.float64 else SUM32
    if operand_kind() == "tf32" and a.dtype == np.float32:
        compute = FAST_TF32
    if not a.size or not b.size:
        if not add:
            out.fill(0)
        return
    if _Direct.now is not None:
        cublas: Any = _Direct.now
        handle = _Direct.now.handle
    else:
        cublas = array_module(out).cuda.cublas
        handle = array_module(out).cuda.device.get_cublas_handle()
    number = np.array([1, add], out.dtype)  # alpha and beta, which cuBLAS reads at the call
    one, keep = number.ctypes.data, number.ctypes.data + number.itemsize
    # cuBLAS counts by columns: the lines of out are its columns, and out.T = b.T @ a.T
    (turn_b, *b), (turn_a, *a), (_, *c) = map(_matrix, (b, a, out))
    sizes = turn_b, turn_a, n, m, k, one
    if groups == 1:
        parts = *b[:3], *a[:3], keep, *c[:3]
        cublas.gemmEx(handle, *sizes, *parts, compute, ANY_ALGORITHM)
    else:
        parts = *b, *a, keep, *c, groups
        cublas.gemmStridedBatchedEx(handle, *sizes, *parts, compute, ANY_ALGORITHM)


def _matrix(x: Any) -> tuple[bool, int, int, int, int]:
    """Whether the columns of each matrix are contiguous, not its lines; where x is, its type, the
    distance of lines (or columns), and of matrices.
    """
    size, (_, lines, columns) = x.itemsize, x.shape
    turned = columns > 1 and x.strides[2] != size
    apart = max(x.strides[2 if turned else 1] // size, lines if turned else columns)
    return turned, x.data.ptr, TYPES[x.dtype.name], apart, x.strides[0] // size


class _Direct:
    """cuBLAS without CuPy, which refuses every call of it while a stream is captured."""

    now: _Direct | None = None

    def __init__(self, cupy: Any, stream: int, room: Any) -> None:
        version = cupy.cuda.cublas.getVersion(cupy.cuda.device.get_cublas_handle()) // 10000
        nt = os.name == "nt"
        self.library = ctypes.CDLL(f"cublas64_{version}.dll" if nt else f"libcublas.so.{version}")
        handle = ctypes.c_void_p()
        self._check(self.library.cublasCreate_v2(ctypes.byref(handle)))
        self.handle = handle
        self._check(self.library.cublasSetStream_v2(handle, ctypes.c_void_p(stream)))
        place, size = ctypes.c_void_p(room.data.ptr), ctypes.c_size_t(room.nbytes)
        self._check(self.library.cublasSetWorkspace_v2(handle, place, size))

    def _check(self, status: int) -> None:
        if status:
            raise RuntimeError(f"cuBLAS returned status {status}")

    def gemmEx(self, handle: Any, *args: Any) -> None:
        """C = alpha A B + beta C."""
        self._call("cublasGemmEx", "iiiiippiipiippiiii", handle, args)

    def gemmStridedBatchedEx(self, handle: Any, *args: Any) -> None:
        """The same for each of several matrices."""
        self._call("cublasGemmStridedBatchedEx", "iiiiippiilpiilppiiliii", handle, args)

    def _call(self, name: str, kinds: str, handle: Any, args: tuple[Any, ...]) -> None:
        types = {"i": ctypes.c_int, "l": ctypes.c_longlong, "p": ctypes.c_void_p}
        values = (types[kind](value) for kind, value in zip(kinds, args, strict=True))
        self._check(getattr(self.library, name)(handle, *values))

    def close(self) -> None:
        """Give the handle back."""
        self.library.cublasDestroy_v2(self.handle)


@contextmanager
def multiply_into_graph(room: Any, stream: Any) -> Iterator[None]:
    """Inside, `multiply` works while `stream` is captured. room: WORKSPACE bytes on the GPU for
    cuBLAS, which must live as long as the graph.
    """
    direct = _Direct.now = _Direct(array_module(room), stream.ptr, room)
    try:
        yield
    finally:
        _Direct.now = None
        direct.close()
