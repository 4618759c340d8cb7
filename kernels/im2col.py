"""Windows of images as rows of a matrix, and back: convolution and pooling as array code.

Layout: images are (n, h, w, c); columns are (n, p, q, r, s, c): for each output pixel (p, q) its r
x s window of c channels, so that one row of the matrix (n·p·q, r·s·c) is what one output pixel
sees. Positions outside the image read as zero.
"""

from __future__ import annotations

from typing import Any

import numba
import numpy as np

from .cases import Case, permuted_view
from .dispatch import array_module, kernel
from .launch import MOST_ROWS, Source, pixel_grid, same_floats
from .memory import empty
from .product import EACH

__all__ = ["Pair", "by_group", "chunk_images", "col2im", "conv_shape", "gather", "im2col"]
__all__ += ["launch_col2im", "launch_im2col", "needs_columns", "output_size", "scatter"]
__all__ += ["window_slices"]

SOURCE = Source("im2col.cu")

Pair = tuple[int, int]


def output_size(size: int, window: int, stride: int, padding: int, dilation: int = 1) -> int:
    """How many windows fit along one axis of `size` pixels."""
    return (size + 2 * padding - dilation * (window - 1) - 1) // stride + 1


def conv_shape(x: Any, w: Any, stride: Pair, padding: Pair, dilation: Pair) -> tuple[int, ...]:
    """The shape (n, p, q, k) of a convolution of x (n, h, w, c) with w (r, s, c/groups, k)."""
    p = output_size(x.shape[1], w.shape[0], stride[0], padding[0], dilation[0])
    q = output_size(x.shape[2], w.shape[1], stride[1], padding[1], dilation[1])
    return x.shape[0], p, q, w.shape[3]


def by_group(rows: Any, groups: int) -> Any:
    """Weights (r, s, c/groups, k) or outputs (n, p, q, k) as matrices (groups, rows, k/groups)."""
    return rows.reshape(-1, groups, rows.shape[-1] // groups).transpose(1, 0, 2)


def needs_columns(window: Pair, stride: Pair, padding: Pair, groups: int) -> bool:
    """Whether the images are not the columns, as they are for a 1x1 window on every pixel."""
    return (*window, *stride, *padding, groups) != (1, 1, 1, 1, 0, 0, 1)


def chunk_images(images: int, bytes_an_image: int, most: int) -> list[slice]:
    """The images, in turns whose columns take no more than `most` bytes; one at least."""
    step = max(1, most // max(1, bytes_an_image))
    return [slice(start, min(start + step, images)) for start in range(0, images, step)]


def window_slices(
    offset: int, count: int, stride: int, size: int, padding: int
) -> tuple[slice, slice]:
    """For one tap of the window: which of `count` outputs read inside the image, and the pixels
    they read.

    Output p reads pixel p · stride + offset - padding.
    """
    start = offset - padding
    first = max(0, -(start // stride))  # ceil(-start / stride)
    last = min(count, (size - 1 - start) // stride + 1)
    last = max(first, last)
    low = first * stride + start
    return slice(first, last), slice(
        low, low + (last - first - 1) * stride + 1 if last > first else low, stride
    )


@kernel(
    Case((2, 5, 6, 3), window=(3, 3), stride=(1, 1), padding=(1, 1), dilation=(1, 1)),
    Case((1, 7, 5, 2), window=(3, 2), stride=(2, 1), padding=(0, 2), dilation=(2, 1)),
    Case((3, 1, 1, 4), window=(3, 3), stride=(2, 2), padding=(1, 1), dilation=(1, 1)),
    Case((2, 4, 4, 1), window=(1, 1), stride=(2, 2), padding=(0, 0), dilation=(1, 1)),
    Case(permuted_view(2, 5, 5, 3), window=(5, 5), stride=(1, 1), padding=(4, 4), dilation=(1, 1)),
)
def im2col(
    x: Any, *, window: Pair, stride: Pair, padding: Pair, dilation: Pair, out: Any = None
) -> Any:
    """x (n, h, w, c) -> columns (n, p, q, r, s, c), written to `out` when given."""
    n, h, w, c = x.shape
    (r, s), (sh, sw), (ph, pw), (dh, dw) = window, stride, padding, dilation
    p, q = output_size(h, r, sh, ph, dh), output_size(w, s, sw, pw, dw)
    columns = empty((n, p, q, r, s, c), x.dtype, like=x) if out is None else out
    columns.fill(0)
    for i in range(r):
        to_p, from_h = window_slices(i * dh, p, sh, h, ph)
        for j in range(s):
            to_q, from_w = window_slices(j * dw, q, sw, w, pw)
            columns[:, to_p, to_q, i, j] = x[:, from_h, from_w]
    return columns


@kernel(
    Case((2, 5, 6, 3, 3, 3), size=(5, 6), stride=(1, 1), padding=(1, 1), dilation=(1, 1)),
    Case((1, 2, 8, 3, 2, 2), size=(7, 5), stride=(2, 1), padding=(0, 2), dilation=(2, 1)),
    Case((3, 1, 1, 3, 3, 4), size=(1, 1), stride=(2, 2), padding=(1, 1), dilation=(1, 1)),
    Case(
        permuted_view(2, 2, 2, 1, 1, 3), size=(4, 4), stride=(2, 2), padding=(0, 0), dilation=(1, 1)
    ),
)
def col2im(columns: Any, *, size: Pair, stride: Pair, padding: Pair, dilation: Pair) -> Any:
    """The adjoint of `im2col`: columns (n, p, q, r, s, c) -> x (n, h, w, c); overlapping windows
    add up.
    """
    n, p, q, r, s, c = columns.shape
    (h, w), (sh, sw), (ph, pw), (dh, dw) = size, stride, padding, dilation
    x = array_module(columns).zeros((n, h, w, c), columns.dtype)
    for i in range(r):
        from_p, to_h = window_slices(i * dh, p, sh, h, ph)
        for j in range(s):
            from_q, to_w = window_slices(j * dw, q, sw, w, pw)
            x[:, to_h, to_w] += columns[:, from_p, from_q, i, j]
    return x


@im2col.cpu(serves=lambda x, out=None, **_: out is None or out.flags.c_contiguous)
def _im2col_cpu(
    x: np.ndarray, *, window: Pair, stride: Pair, padding: Pair, dilation: Pair, out: Any = None
) -> np.ndarray:
    n, h, w, c = x.shape
    p = output_size(h, window[0], stride[0], padding[0], dilation[0])
    q = output_size(w, window[1], stride[1], padding[1], dilation[1])
    columns = empty((n, p, q, *window, c), x.dtype) if out is None else out
    gather(np.ascontiguousarray(x), columns, 0, *stride, *padding, *dilation)
    return columns


@col2im.cpu(serves=lambda columns, **_: columns.dtype.kind == "f")
def _col2im_cpu(
    columns: np.ndarray, *, size: Pair, stride: Pair, padding: Pair, dilation: Pair
) -> np.ndarray:
    x = empty((columns.shape[0], *size, columns.shape[-1]), columns.dtype)
    x.fill(0)
    scatter(np.ascontiguousarray(columns), x, 0, *stride, *padding, *dilation)
    return x


@numba.njit(cache=True, nogil=True)
def gather(x, columns, channel, sh, sw, ph, pw, dh, dw):
    """The loops of `im2col`, for as many channels as the columns have, from `channel` on: one
    thread, no allocation.
    """
    n, h, w, _ = x.shape
    _, p, q, r, s, c = columns.shape
    for line in range(n * p):  # one line of output pixels
        b, i = line // p, line % p
        for j in range(q):
            for u in range(r):
                y = i * sh + u * dh - ph
                for v in range(s):
                    z = j * sw + v * dw - pw
                    if 0 <= y < h and 0 <= z < w:
                        for k in range(c):
                            columns[b, i, j, u, v, k] = x[b, y, z, channel + k]
                    else:
                        for k in range(c):
                            columns[b, i, j, u, v, k] = 0


@numba.njit(cache=True, nogil=True)
def scatter(columns, x, channel, sh, sw, ph, pw, dh, dw):
    """The loops of `col2im`, added to as many channels as the columns have, from `channel` on."""
    n, h, w, _ = x.shape
    _, p, q, r, s, c = columns.shape
    for b in range(n):
        for i in range(p):
            for j in range(q):
                for u in range(r):
                    y = i * sh + u * dh - ph
                    if y < 0 or y >= h:
                        continue
                    for v in range(s):
                        z = j * sw + v * dw - pw
                        if 0 <= z < w:
                            for k in range(c):
                                x[b, y, z, channel + k] += columns[b, i, j, u, v, k]


def launch_im2col(
    x: Any,
    columns: Any,
    beside: Any = None,
    *,
    stride: Pair,
    padding: Pair,
    dilation: Pair,
    groups: int = 1,
) -> None:
    """Fill columns (groups, n, p, q, r, s, c/groups) from x (n, h, w, c), on the GPU.

    Columns of 16 bits hold the numbers rounded; the same launch then rounds another array, too:
    `beside` is a pair, from and to.
    """
    _, n, p, q, r, s, c = columns.shape
    neighbours = dilation[1] == 1 and groups == 1  # the taps of a line are one piece of memory
    lines, length = (r, s * c) if neighbours else (r * s, c)
    pieces = groups * n * p * q * lines
    (blocks, _), block = pixel_grid(pieces, min(length, 32))
    sizes = pieces, lines, length, n, *x.shape[1:3], c, p, q, s, groups
    steps = *stride, *padding, *dilation
    if columns.dtype == x.dtype:
        SOURCE.launch("im2col", (blocks,), block, x, columns, *sizes, *steps)
        return
    given, narrow = beside or (None, None)
    count, bits = 0 if given is None else given.size, np.uint16
    more = None if narrow is None else narrow.view(bits)
    blocks -= -count // (block[0] * block[1] * EACH)
    SOURCE.launch(
        *("im2col_narrow", (blocks,), block, x, columns.view(bits), given, more, count, EACH),
        *(columns.dtype == bits, *sizes, *steps),
    )


def launch_col2im(
    columns: Any,
    x: Any,
    total: Any = None,
    *,
    stride: Pair,
    padding: Pair,
    dilation: Pair,
    groups: int = 1,
) -> None:
    """Fill x (n, h, w, c) from columns (groups, n, p, q, r, s, c/groups), plus `total` (like x)
    where it is given, on the GPU.
    """
    _, n, p, q, r, s, c = columns.shape
    pixels = x.size // max(1, x.shape[3])
    grid, block = pixel_grid(pixels, x.shape[3])
    SOURCE.launch(
        *("col2im", grid, block, columns, total, x, pixels, n, *x.shape[1:3], c, p, q, r, s),
        *(groups, *stride, *padding, *dilation),
    )


def _pieces_fit(x: Any, *, window: Pair, stride: Pair, out: Any = None, **_: Any) -> bool:
    pieces = x.size // max(1, x.shape[3]) // (stride[0] * stride[1]) * window[0] * window[1]
    return same_floats(x, out) and pieces <= MOST_ROWS // 2


@im2col.cuda(serves=_pieces_fit)
def _im2col_cuda(
    x: Any, *, window: Pair, stride: Pair, padding: Pair, dilation: Pair, out: Any = None
) -> Any:
    n, h, w, c = x.shape
    p = output_size(h, window[0], stride[0], padding[0], dilation[0])
    q = output_size(w, window[1], stride[1], padding[1], dilation[1])
    columns = empty((n, p, q, *window, c), x.dtype, like=x) if out is None else out
    x = array_module(x).ascontiguousarray(x)
    launch_im2col(x, columns[None], stride=stride, padding=padding, dilation=dilation)
    return columns


@col2im.cuda(serves=same_floats)
def _col2im_cuda(columns: Any, *, size: Pair, stride: Pair, padding: Pair, dilation: Pair) -> Any:
    x = empty((columns.shape[0], *size, columns.shape[-1]), columns.dtype, like=columns)
    columns = array_module(columns).ascontiguousarray(columns)
    launch_col2im(columns[None], x, stride=stride, padding=padding, dilation=dilation)
    return x
