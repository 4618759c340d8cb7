"""A convolution with its BatchNorm, and the gradients of both, a few images at a time.

Forward, the convolution gathers the batch's statistics while its outputs are in registers; so
BatchNorm need not read them all once more for that.

Backward, between the two lies the gradient dz of the convolution's output. As a whole it fits no
cache: BatchNorm would write it to memory, and the gradients of inputs and weights would each read
it from there. Here BatchNorm's second pass makes dz of so many images that it stays in the cache;
their part of both gradients follows at once; the next images' dz takes its place. The compiled
loops are those of `norm` and `winograd`, one after another.

Each part of the images has sums of its own for the weight gradient, so this pays with few channels.
With BatchNorm, the gradients of 16 channels (32x32, batch 128, two cores of an EPYC, Zen 5) take
0.74 to 0.81 times as long on two threads and 0.90 on one, those of 32 channels (16x16) 0.73 to 0.79
and 0.95; of 64 channels (8x8) 0.89 to 1.02 and 1.25, so they go one after another.

Results do not depend on the number of threads: the images are cut into a fixed number of parts,
whose sums are added in order.
"""

from __future__ import annotations

from typing import Any

import numba
import numpy as np

from . import norm_loops, winograd_loops
from .cases import Case, permuted_view, positive
from .conv import conv2d, conv2d_input_gradient, conv2d_weight_gradient
from .dispatch import kernel
from .finish import prepare_finish
from .im2col import Pair
from .memory import address, empty, threads, workspace
from .norm import (
    fills_vectors,
    join_rows,
    normalise_batch,
    normalise_batch_cpu,
    normalise_gradient,
    running,
    streams,
)
from .plan import choose_convolution
from .simd import LINE
from .tasks import runs, share_runs
from .winograd import (
    backward_shape,
    chunk_sizes,
    convolve_and_sum,
    forward_shape,
    gradient_sizes,
    has_whole_lines,
    is_deep,
)
from .winograd_tiles import Shape

__all__ = ["conv_norm", "conv_norm_gradient"]

PARTS = 16  # of the images: each has sums of its own for the weight gradient
TOGETHER = 1 << 18  # bytes of dz that are made together; the sums of a part are no more


def _forward_case(images: tuple[int, ...], k: int, *more: Any, **params: Any) -> Case:
    """A 3x3 convolution with padding 1 and stride 1; `more`: residual, running statistics."""
    known = {"stride": (1, 1), "padding": (1, 1), "dilation": (1, 1), "groups": 1}
    known |= {"relu": True, "eps": 1e-5}
    return Case(images, (3, 3, images[3], k), (k,), (k,), *more, **(known | params))


@kernel(
    _forward_case((9, 8, 8, 4), 16),
    _forward_case((9, 8, 8, 20), 16, (9, 8, 8, 16), eps=1e-3),
    _forward_case((8, 16, 16, 16), 32, relu=False, stride=(2, 2)),
    _forward_case((8, 8, 8, 5), 16, None, *running(16), momentum=0.1),
)
def conv_norm(
    x: Any,
    w: Any,
    gamma: Any,
    beta: Any,
    residual: Any = None,
    running_mean: Any = None,
    running_var: Any = None,
    tracked: Any = None,
    *,
    eps: float,
    relu: bool,
    momentum: float | None = None,
    stride: Pair,
    padding: Pair,
    dilation: Pair,
    groups: int,
) -> tuple[Any, Any, Any, Any]:
    """The convolution z (n, p, q, k) of images x (n, h, w, c) with w (r, s, c/groups, k), and what
    `normalise_batch` makes of it: y, mean, var. The parameters are those of both.
    """
    z = conv2d(x, w, stride=stride, padding=padding, dilation=dilation, groups=groups)
    kept = running_mean, running_var, tracked
    y, mean, var = normalise_batch(
        z, gamma, beta, residual, *kept, eps=eps, relu=relu, momentum=momentum
    )
    return z, y, mean, var


def _gathers(
    x: Any,
    w: Any,
    gamma: Any,
    beta: Any,
    residual: Any = None,
    *_: Any,
    dilation: Pair,
    groups: int,
    **params: Any,
) -> bool:
    """Whether a Winograd convolution can gather the statistics of its outputs."""
    stride, padding = params["stride"], params["padding"]
    plan = choose_convolution(x.shape, w.shape, stride, padding, dilation, groups, x.dtype)
    others = (w,) if residual is None else (w, residual)
    if plan not in ("winograd", "polyphase") or any(a.dtype != x.dtype for a in others):
        return False
    return has_whole_lines(forward_shape(x.shape, w.shape[3], stride, padding))


@conv_norm.cpu(serves=_gathers)
def _conv_norm_cpu(
    x, w, gamma, beta, residual=None, running_mean=None, running_var=None, tracked=None,
    *, eps, relu, momentum=None, stride, padding, dilation, groups,
):  # fmt: skip
    z, sums, each = convolve_and_sum(x, w, stride=stride, padding=padding)
    known: Any = {"gathered": (sums, each)} if address(z) % LINE == 0 else {}
    kept = running_mean, running_var, tracked
    y, mean, var = normalise_batch_cpu(
        z, gamma, beta, residual, *kept, eps=eps, relu=relu, momentum=momentum, **known
    )
    return z, y, mean, var


def _case(images: tuple[int, ...], k: int, *more: Any, **params: Any) -> Case:
    """A 3x3 convolution with padding 1 and stride 1; `more`: the output and the sum."""
    outputs, vectors = (*images[:3], k), ((k,), (k,), (k,), positive(k))
    known = {"stride": (1, 1), "padding": (1, 1), "dilation": (1, 1), "groups": 1}
    known |= {"wants": (True, True), "relu": True, "from_batch": True}
    weights = 3, 3, images[3], k
    return Case(outputs, outputs, images, weights, *vectors, *more, **(known | params))


@kernel(
    _case((5, 8, 8, 4), 4),
    _case((5, 8, 8, 16), 16, (5, 8, 8, 16), (5, 8, 8, 16)),
    _case((5, 8, 12, 5), 32, None, (5, 8, 12, 5), relu=False),
    _case((5, 9, 8, 20), 16, permuted_view(5, 9, 8, 16), from_batch=False),
)
def conv_norm_gradient(
    g: Any,
    z: Any,
    x: Any,
    w: Any,
    gamma: Any,
    beta: Any,
    mean: Any,
    var: Any,
    y: Any = None,
    total: Any = None,
    *,
    wants: tuple[bool, bool],
    relu: bool,
    from_batch: bool,
    eps: float = 1e-5,
    stride: Pair,
    padding: Pair,
    dilation: Pair,
    groups: int,
) -> tuple[Any, Any, Any, Any, Any]:
    """dx, dw, dgamma, dbeta, and, where `y` is given, g as it came out of the ReLU, else None.

    z (n, p, q, k) is the convolution of images x (n, h, w, c) with w (r, s, c/groups, k); dx is the
    sum with `total`, where that is given. wants: whether dx and dw are wanted, else None. The
    others are those of `normalise_gradient` and of the convolution's gradients.
    """
    params: Any = {"stride": stride, "padding": padding, "dilation": dilation, "groups": groups}
    norm: Any = {"relu": relu, "from_batch": from_batch, "eps": eps}
    dx = dw = None
    dz, dgamma, dbeta, masked = normalise_gradient(g, z, gamma, beta, mean, var, y, **norm)
    if wants[0]:
        dx = conv2d_input_gradient(dz, w, total, size=x.shape[1:3], **params)
    if wants[1]:
        dw = conv2d_weight_gradient(x, dz, window=w.shape[:2], **params)
    return dx, dw, dgamma, dbeta, masked


def _serves(
    g: Any,
    z: Any,
    x: Any,
    w: Any,
    *vectors: Any,
    wants: Any,
    dilation: Pair,
    groups: int,
    **params: Any,
) -> bool:
    """Whether both are wanted, compiled loops serve both BatchNorm's rows and the convolution, and
    the weight gradient's sums are few.
    """
    stride, padding = params["stride"], params["padding"]
    plan = choose_convolution(x.shape, w.shape, stride, padding, dilation, groups, x.dtype)
    if wants != (True, True) or plan != "winograd" or not fills_vectors(z, g, x, w, *vectors[4:]):
        return False
    s = forward_shape(x.shape, w.shape[3], stride, padding)
    back = backward_shape(z.shape, x.shape[1:3], w.shape[2], stride, padding)
    few = 4 * gradient_sizes(s, 1)[-1] <= TOGETHER and not is_deep(s) and not is_deep(back)
    return few and join_rows(s.p * s.q, s.k)[1] % norm_loops.WIDTH == 0


def _images_together(s: Shape) -> int:
    """Of how many images dz is made at a time."""
    return max(1, TOGETHER // (4 * s.p * s.q * s.k))


@conv_norm_gradient.cpu(serves=_serves)
def _conv_norm_gradient_cpu(
    g, z, x, w, gamma, beta, mean, var, y=None, total=None,
    *, wants, relu, from_batch, eps=1e-5, stride, padding, dilation, groups,
):  # fmt: skip
    g, z, x, w = map(np.ascontiguousarray, (g, z, x, w))
    mean, var = np.asarray(mean, np.float64), np.asarray(var, np.float64)
    dx, dw = empty(x.shape, x.dtype), empty(w.shape, x.dtype)
    masked, signs, written = None, 0, 0
    if y is not None:
        y, masked = np.ascontiguousarray(y), empty(z.shape, z.dtype)
        signs, written = address(y), address(masked)
    finish, _kept = prepare_finish(x.shape[3], None, total, False)
    workers, parts = threads(), min(PARTS, len(z))
    s = forward_shape(x.shape, z.shape[3], stride, padding)
    back = backward_shape(z.shape, x.shape[1:3], x.shape[3], stride, padding)
    images = _images_together(s)
    _, _, sum_tiles, sum_size, numbers = gradient_sizes(s, 1)
    tiles, size, windows = chunk_sizes(back)
    size = max(size, sum_size)

    rows, width = join_rows(s.p * s.q, s.k)  # of an image
    sums, table = np.empty((2, s.k), z.dtype), np.empty((6, width), z.dtype)
    norm_loops.sum_gradient(
        *(address(g), address(z), s.n * rows, width, gamma, beta, mean, var, float(eps)),
        *(relu and y is None, bool(from_batch), signs, written, sums, table),
        *(streams(z, written), workers),
    )
    with (
        workspace((workers, images, *z.shape[1:]), z.dtype) as dz,
        workspace((windows,), z.dtype) as u,
        workspace((parts, numbers), z.dtype) as du,
        workspace((workers, size), z.dtype) as scratch,
    ):
        _gradients(
            *(s, back, images, written or address(g), address(z), rows, table, address(dz)),
            *(address(x), address(w), address(u), address(dx), finish, address(du), address(dw)),
            *(address(scratch), 4 * size, workers, tiles, sum_tiles, parts, 4 * numbers),
        )
    return dx, dw, sums[1], sums[0], masked


@numba.njit(cache=True, parallel=True)
def _gradients(
    s, back, images, g, z, rows, table, dz, x, w, u, dx, finish, du, dw,
    scratch, worker_bytes, workers, tiles, sum_tiles, parts, part_bytes,
):  # fmt: skip
    """BatchNorm's second pass and both gradients of the convolution `s`, `images` at a time; `back`
    is that of the input gradient. `rows` of the table's width are an image.

    A part has its images and its sums du; a worker has some parts, its dz and its scratch.
    """
    image, blocks = 4 * s.p * s.q * s.k, (s.k + winograd_loops.BLOCK - 1) // winograd_loops.BLOCK
    winograd_loops.transform_weights(back, w, u, True, scratch, workers)
    longest = (s.n + parts - 1) // parts
    left = share_runs(parts, (longest + images - 1) // images)
    for worker in numba.prange(workers):
        place = scratch + worker * worker_bytes
        for part, chunk, last_chunk in runs(left, workers):
            begin, end = part * s.n // parts, (part + 1) * s.n // parts
            end = min(begin + last_chunk * images, end)
            for first in range(begin + chunk * images, end, images):
                last = min(first + images, end)
                here = dz + worker * images * image - first * image  # where dz would begin
                norm_loops.write_gradient(g, z, first * rows, last * rows, table, here, False)
                each = back.down * back.across
                winograd_loops.convolve_tiles(
                    back, here, u, dx, finish, place, tiles, first * each, last * each
                )
                each = s.down * s.across
                winograd_loops.sum_tiles(
                    s, x, here, du + part * part_bytes, first > begin,
                    place, sum_tiles, first * each, last * each, 0, blocks,
                )  # fmt: skip
    winograd_loops.add_parts(s, du, dw, parts, workers)
