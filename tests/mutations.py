"""The bugs that `test_mutations` plants: which text of which module becomes which other text."""

from __future__ import annotations

from typing import NamedTuple

__all__ = ["IM2COL", "MUTATIONS", "Mutation"]

IM2COL = ("kernels.im2col", "kernels.chunked", "kernels.conv", "functional.conv")
POOL = ("kernels.pool", "functional.pool")
NORM = ("kernels.norm", "kernels.conv_norm", "functional.norm")
LOSS = ("kernels.loss", "functional.loss")


class Mutation(NamedTuple):
    """In `path[0]`, `old` becomes `new`; the operation `op` stands in the last module of `path`."""

    bug: str
    op: str
    path: tuple[str, ...]
    old: str
    new: str
    twin: bool = False  # whether the bug is in a kernel's Numba twin, not in its reference


def in_functional(family: str, op: str, bug: str, old: str, new: str) -> Mutation:
    """A mutation of the operation's own module."""
    return Mutation(bug, op, (f"functional.{family}",), old, new)


def in_kernels(
    path: tuple[str, ...], op: str, bug: str, old: str, new: str, twin: bool = False
) -> Mutation:
    """A mutation of a kernel that the operation calls through the modules of `path`."""
    return Mutation(bug, op, path, old, new, twin)


MUTATIONS = [
    # arithmetic
    *(
        in_functional("arithmetic", *row)
        for row in (
            ("add", "mean over the broadcast axes, not sum", "return g.sum(", "return g.mean("),
            ("sub", "sign", "unbroadcast(-g, _shape(y))", "unbroadcast(g, _shape(y))"),
            (
                "mul",
                "wrong operand",
                "unbroadcast(g * x, _shape(y))",
                "unbroadcast(g * y, _shape(y))",
            ),
            ("div", "square forgotten", "-g * x / (y * y)", "-g * x / y"),
            ("div", "sign", "-g * x / (y * y)", "g * x / (y * y)"),
            ("power", "dropped factor", "g * y * x ** (y - 1)", "g * x ** (y - 1)"),
            ("power", "wrong logarithm", "g * z * xp.log(x)", "g * z * xp.log2(x)"),
            (
                "matmul",
                "reversed",
                "(g @ b.swapaxes(-1, -2), a.s",
                "(g @ b.swapaxes(-1, -2)[::-1], a.s",
            ),
        )
    ),
    # activations
    *(
        in_functional("elementwise", *row)
        for row in (
            ("sqrt", "dropped factor", "g / (2 * y)", "g / y"),
            ("tanh", "square forgotten", "g * (1 - y * y)", "g * (1 - y)"),
            ("sigmoid", "dropped factor", "g * y * (1 - y)", "g * y"),
            ("silu", "missing term", "g * s * (1 + x * (1 - s))", "g * s"),
            ("relu", "mask left out", "g * (y > 0)", "g * 1"),
            ("leaky_relu", "slope left out", "(g * factor,)", "(g * (factor == 1),)"),
            ("gelu", "that of the identity", "activation.gelu_gradient(g, x)", "g"),
            ("gelu", "dropped factor", "(1 + 3 * 0.044715 * x * x)", "(1 + 0.044715 * x * x)"),
            ("clip", "mask left out", "g * (x == y)", "g"),
            ("maximum", "the other side", "g * (1 - takes_x)", "g * takes_x"),
        )
    ),
    # reductions and shapes
    *(
        in_functional("reduce", *row)
        for row in (
            ("mean", "dropped factor", "_expand(g / count, x, axes)", "_expand(g, x, axes)"),
            ("var", "mean not subtracted", "* centred * (2 / count)", "* x * (2 / count)"),
            ("var", "dropped factor", "centred * (2 / count)", "centred / count"),
            ("max", "everywhere, not at the maximum", "(hit * _expand", "((1 + hit) * _expand"),
        )
    ),
    *(
        in_functional("shape", *row)
        for row in (
            ("getitem", "= for +=", "xp.add.at(dx, index, g)", "dx[index] = g"),
            (
                "pad",
                "off by one",
                "(g[inside],)",
                "(g[tuple(slice(s.start - (s.start > 0), s.stop - (s.start > 0))"
                " for s in inside)],)",
            ),
            ("broadcast_to", "mean for sum", "(g.sum(axis=axes", "(g.mean(axis=axes"),
        )
    ),
    # linear and convolution
    *(
        in_functional("conv", *row)
        for row in (
            ("linear", "mean for sum", "rows.sum(axis=0)", "rows.mean(axis=0)"),
            ("linear", "reversed axis", "product(g, w.T) if", "product(g, w[::-1].T) if"),
            ("conv2d", "dropped factor", "g.sum(axis=(0, 1, 2)) if", "g.mean(axis=(0, 1, 2)) if"),
            ("conv_bias", "ReLU forgotten", "dz = g * (y > 0) if relu", "dz = g if relu"),
            ("conv_bias", "residual not masked", "take), db, dz)", "take), db, g)"),
        )
    ),
    *(
        in_kernels(IM2COL, "conv2d", *row)
        for row in (
            (
                "= for += in col2im",
                "x[:, to_h, to_w] += columns",
                "x[:, to_h, to_w] = columns",
            ),
            (
                "= for += in the fast col2im",
                "x[b, y, z, channel + k] += columns",
                "x[b, y, z, channel + k] = columns",
                True,
            ),
        )
    ),
    *(
        in_kernels(IM2COL[2:], "conv2d", *row)
        for row in (
            (
                "padding off by one",
                "dx = col2im(columns, size=size, stride=stride, padding=padding,",
                "dx = col2im(columns, size=size, stride=stride, padding=(0, padding[1]),",
            ),
            (
                "window not turned",
                "by_group(w, groups).transpose(0, 2, 1)",
                "by_group(w[::-1, ::-1], groups).transpose(0, 2, 1)",
            ),
            (
                "order of the groups",
                "return dw.transpose(1, 0, 2).reshape(",
                "return dw.reshape(",
            ),
            (
                "padding left out of the weight gradient",
                "columns = im2col(x, window=window, stride=stride, padding=padding,",
                "columns = im2col(x * (x > 0), window=window, stride=stride, padding=padding,",
            ),
        )
    ),
    # BatchNorm
    *(
        in_kernels(NORM, *row)
        for row in (
            (
                "batch_norm",
                "eval-mode statistics in training",
                "/ rows if from_batch else 0 * a",
                "* 0",
            ),
            ("batch_norm", "missing mean", "d = -a * dbeta / rows - b", "d = -b"),
            ("batch_norm", "missing projection", "b = -a * dgamma * inverse_std", "b = 0 * a"),
            ("batch_norm", "gamma left out", "a = gamma * inverse_std", "a = inverse_std"),
            ("batch_norm", "not normalised", ".sum(axis=axes) * inverse_std", ".sum(axis=axes)"),
            ("batch_norm", "mean not subtracted", "(x.astype(np.float64) - mean)", "x"),
            ("conv_norm", "ReLU forgotten", "elif relu:", "elif False:"),
        )
    ),
    in_functional(
        "norm", "conv_norm", "residual not masked", "g if masked is None else masked", "g"
    ),
    # pooling
    *(
        in_functional("pool", *row)
        for row in (
            (
                "adaptive_avg_pool2d",
                "= for +=",
                "dx[:, row, column] += (",
                "dx[:, row, column] = (",
            ),
            ("global_avg_pool2d", "one axis forgotten", "(g / pixels)", "(g / x.shape[1])"),
        )
    ),
    *(
        in_kernels(POOL, "avg_pool2d", *row)
        for row in (
            ("dropped factor", "share = g / _counts(", "share = g * 1 ** _counts("),
            (
                "padding off by one",
                "col2im(columns, size=size, **params)",
                "col2im(columns, size=size, **{**params, 'padding': (0, 0)})",
            ),
        )
    ),
    in_kernels(
        POOL,
        "max_pool2d",
        "= for += where a pixel won twice",
        "dx[b, row, column, k] += g[b, i, j, k] if won else zero",
        "dx[b, row, column, k] = g[b, i, j, k] if won else dx[b, row, column, k]",
        twin=True,
    ),
    in_kernels(
        POOL,
        "max_pool2d",
        "to every pixel of the window",
        "(index[:, :, :, None] == places)",
        "(index[:, :, :, None] >= places)",
    ),
    # losses and dropout
    *(
        in_functional("loss", *row)
        for row in (
            ("softmax", "wrong axis", "(g * y).sum(axis=axis,", "(g * y).sum(axis=0,"),
            ("softmax", "coupling left out", "(y * (g - (g * y)", "(y * (g - 0 * (g * y)"),
            ("log_softmax", "dropped factor", "g - xp.exp(y) * g.sum", "g - g.sum"),
            ("cross_entropy", "not averaged", "g = g / divisor\n", "g = g / 1\n"),
            ("mse_loss", "dropped factor", "(2 * g / x.size)", "(g / x.size)"),
        )
    ),
    *(
        in_kernels(LOSS, "cross_entropy", *row)
        for row in (
            (
                "label smoothing forgotten",
                "log_p.shape[1], log_p.dtype, smoothing)",
                "log_p.shape[1], log_p.dtype, 0)",
            ),
            ("class weights forgotten", "(wanted.sum(axis=1, keepdims=True) *", "(1 *"),
        )
    ),
    in_functional(
        "dropout",
        "dropout",
        "scale forgotten",
        "(drop(g, p=p, key=key),)",
        "(drop(g, p=p, key=key) * (1 - p),)",
    ),
    in_functional(
        "dropout",
        "dropout",
        "another mask",
        "(drop(g, p=p, key=key),)",
        "(drop(g, p=p, key=next_key()),)",
    ),
]
