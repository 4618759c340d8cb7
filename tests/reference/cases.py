"""Every op's sample calls, for the script that asks PyTorch and the table that asks minires."""

from __future__ import annotations

from typing import Any

from .calls import Input, OpCase, case, labels, positive, probabilities

__all__ = ["CASES"]

ARITHMETIC = [
    case(op, a, b if op not in ("div",) else positive(*b))
    for op in ("add", "sub", "mul", "div", "maximum", "minimum")
    for a, b in (((3, 4), (3, 4)), ((2, 3, 4), (4,)), ((3, 1), (1, 5)), ((), (2, 3)))
] + [
    case("neg", (3, 4)),
    case("pow", (3, 4), exponent=2),
    case("pow", (3, 4), exponent=3),
    case("pow", positive(3, 4), exponent=0.5),
    case("pow", positive(3, 4), exponent=-1.5),
    case("power", positive(3, 4), (4,)),
]

MATMUL = [
    case("matmul", (4, 5), (5, 3)),
    case("matmul", (2, 4, 5), (2, 5, 3)),
    case("matmul", (2, 1, 4, 5), (3, 5, 2)),
    case("matmul", (2, 4, 5), (5, 3)),
    case("matmul", (5,), (5, 3)),
    case("matmul", (2, 4, 5), (5,)),
    case("matmul", (5,), (5,)),
    case("linear", (4, 5), (5, 3), (3,)),
    case("linear", (4, 5), (5, 3), None),
    case("linear", (32, 96), (96, 40), (40,)),
]

AXES: list[dict[str, Any]] = [
    {},
    {"axis": 1},
    {"axis": -1, "keepdims": True},
    {"axis": (0, 2)},
    {"axis": (1, 2), "keepdims": True},
]
REDUCTIONS = [
    case(op, (3, 4, 5), **axes) for op in ("sum", "mean", "var", "max", "min") for axes in AXES
]
REDUCTIONS += [case("var", (3, 4, 5), axis=(0, 1), ddof=1)]

SHAPES = [
    case("reshape", (3, 4, 5), shape=(4, 15)),
    case("reshape", (3, 4, 5), shape=(5, -1)),
    case("flatten", (3, 2, 2, 4), start_axis=1),
    case("transpose", (3, 4, 5)),
    case("transpose", (3, 4, 5), axes=(1, 2, 0)),
    case("squeeze", (3, 1, 5), axis=1),
    case("squeeze", (1, 3, 1), axis=-1),
    case("expand_dims", (3, 5), axis=1),
    case("broadcast_to", (3, 1), shape=(2, 3, 4)),
    case("pad", (2, 3, 3, 2), widths=((0, 0), (1, 2), (0, 1), (0, 0))),
    case("pad", (2, 3), widths=((1, 0), (0, 2)), value=1.5),
    case("getitem", (5, 6), index=(slice(1, 4), slice(None, None, 2))),
    case("getitem", (5, 6), index=(slice(None), -1)),
    case("getitem", (4, 5, 6), index=(Ellipsis, 2)),
    case("getitem", (5, 6), index=((0, 2, 2, 4),)),
    case("getitem", (5, 6), index=((0, 2, 2, 4), (1, 3, 3, 5))),
    case("concatenate", [(2, 3), (4, 3)], axis=0),
    case("concatenate", [(2, 3, 2), (2, 1, 2), (2, 2, 2)], axis=1),
    case("stack", [(2, 3), (2, 3)], axis=0),
    case("stack", [(2, 3), (2, 3), (2, 3)], axis=-1),
    case("where", (4, 5), (4, 5)),
    case("where", (4, 5), (5,)),
]

ELEMENTWISE = (
    [case(op, (4, 6)) for op in ("exp", "abs", "relu", "gelu", "silu", "sigmoid", "tanh")]
    + [case(op, (2, 5, 5, 16)) for op in ("relu", "gelu", "silu", "sigmoid", "tanh")]
    + [case(op, positive(4, 6)) for op in ("log", "sqrt")]
    + [case("leaky_relu", (4, 6), slope=0.2), case("gelu", (4, 6), approximate="tanh")]
    + [case("clip", (4, 6), low=-0.5, high=1.0), case("dropout", (4, 6), p=0.4, training=False)]
)

LOSSES = [case(op, (4, 7), axis=-1) for op in ("softmax", "log_softmax")]
LOSSES += [case(op, (3, 4, 5), axis=1) for op in ("softmax", "log_softmax")]
for target in (labels(6, 5), probabilities(6, 5)):
    LOSSES += [case("cross_entropy", (6, 5), target, **p) for p in (
        {},
        {"label_smoothing": 0.1},
        {"reduction": "sum"},
        {"reduction": "none"},
        {"reduction": "sum", "label_smoothing": 0.2},
        {"weight": Input((5,), "positive")},
        {"weight": Input((5,), "positive"), "label_smoothing": 0.1},
    )]  # fmt: skip
LOSSES += [case("cross_entropy", (64, 100), labels(64, 100)), case("mse_loss", (4, 5), (4, 5))]

CONV = [
    case("conv2d", (2, 5, 5, 3), (3, 3, 3, 4), None),
    case("conv2d", (2, 5, 5, 3), (3, 3, 3, 4), (4,), padding=1),
    case("conv2d", (1, 7, 6, 2), (3, 3, 2, 3), (3,), stride=2, padding=1),
    case("conv2d", (1, 7, 8, 2), (3, 2, 2, 3), (3,), stride=(2, 1), padding=(0, 1)),
    case("conv2d", (1, 9, 9, 2), (3, 3, 2, 3), None, dilation=2, padding=2),
    case(
        "conv2d", (1, 9, 8, 2), (2, 3, 2, 3), (3,), dilation=(3, 1), stride=(1, 2), padding=(1, 2)
    ),
    case("conv2d", (2, 5, 5, 4), (3, 3, 2, 6), (6,), groups=2, padding=1),
    case("conv2d", (1, 6, 6, 6), (3, 3, 2, 3), None, groups=3, stride=2, padding=1),
    case("conv2d", (2, 5, 5, 4), (3, 3, 1, 4), (4,), groups=4, padding=1),
    case("conv2d", (2, 5, 5, 3), (3, 3, 1, 6), None, groups=3),
    case("conv2d", (2, 4, 4, 3), (1, 1, 3, 5), (5,)),
    case("conv2d", (2, 5, 5, 3), (1, 1, 3, 5), None, stride=2),
    case("conv2d", (1, 9, 9, 3), (7, 7, 3, 4), None, stride=2, padding=3),
    case("conv2d", (1, 5, 5, 2), (5, 5, 2, 3), (3,), padding=2),
    case("conv2d", (1, 6, 6, 2), (4, 4, 2, 3), None, stride=4),
    case("conv2d", (1, 7, 7, 1), (2, 2, 1, 2), None, stride=3),
    case("conv2d", (3, 16, 16, 16), (3, 3, 16, 32), None, padding=1),
    case("conv2d", (3, 15, 13, 24), (3, 3, 24, 20), None, padding=1, stride=2),
    case("conv2d", (2, 16, 16, 3), (3, 3, 3, 64), None, padding=1),
]

NORM = [
    case("batch_norm", shape, (shape[-1],), (shape[-1],), training=True)
    for shape in ((6, 3), (2, 3, 3, 4), (4, 8, 8, 20))
] + [
    case("batch_norm", (2, 3, 3, 4), None, None, training=True),
    case("batch_norm", (2, 3, 3, 4), (4,), (4,), training=True, eps=0.1),
    case("batch_norm", (2, 3, 3, 4), (4,), (4,), training=False, running=4),
    case("batch_norm", (2, 3, 3, 4), None, None, training=False, running=4, eps=1e-3),
]

FUSED: list[OpCase] = []
for mode in ({"running": 4, "training": True}, {"running": 4, "training": False}):
    for residual in (None, (2, 5, 5, 4)):
        arrays = ((2, 5, 5, 3), (3, 3, 3, 4), (4,), (4,), residual)
        FUSED += [case("conv_norm", *arrays, **mode, relu=r, padding=1) for r in (False, True)]
    arrays = ((2, 7, 7, 4), (3, 3, 2, 4), (4,), (4,), None)
    FUSED += [case("conv_norm", *arrays, **mode, relu=True, padding=1, stride=2, groups=2)]
    arrays = ((3, 9, 12, 16), (3, 3, 16, 24), (24,), (24,), (3, 9, 12, 24))
    mode = {**mode, "running": 24}
    FUSED += [case("conv_norm", *arrays, **mode, relu=True, padding=1)]

for relu in (False, True):
    arrays = ((2, 5, 5, 3), (3, 3, 3, 4), (4,), (2, 5, 5, 4))
    FUSED += [case("conv_bias", *arrays, relu=relu, padding=1)]
    FUSED += [case("conv_bias", *arrays[:2], None, None, relu=relu, padding=1)]
    arrays = ((3, 9, 12, 16), (3, 3, 16, 24), (24,), (3, 9, 12, 24))
    FUSED += [case("conv_bias", *arrays, relu=relu, padding=1)]
arrays = ((2, 7, 7, 4), (3, 3, 2, 4), (4,), None)
FUSED += [case("conv_bias", *arrays, relu=True, padding=1, stride=2, groups=2)]

POOL = (
    [
        case(op, *shape, **params)
        for op in ("max_pool2d", "avg_pool2d")
        for shape, params in (
            (((2, 6, 6, 3),), {"kernel_size": 2}),
            (((1, 7, 7, 2),), {"kernel_size": 3, "stride": 2, "padding": 1}),
            (((1, 7, 6, 2),), {"kernel_size": (3, 2), "stride": (1, 2), "padding": (1, 0)}),
            (((1, 5, 5, 2),), {"kernel_size": 3, "stride": 1}),
            (((2, 16, 16, 20),), {"kernel_size": 2}),
        )
    ]
    + [
        case(
            "avg_pool2d", (1, 7, 7, 2),
            kernel_size=3, stride=2, padding=1, count_include_pad=False,
        ),
        case("adaptive_avg_pool2d", (2, 6, 6, 3), output_size=3),
        case("adaptive_avg_pool2d", (1, 7, 5, 2), output_size=(3, 2)),
        case("adaptive_avg_pool2d", (1, 4, 4, 2), output_size=1),
        case("adaptive_avg_pool2d", (1, 3, 3, 2), output_size=5),
        case("global_avg_pool2d", (2, 4, 5, 3)),
        case("global_max_pool2d", (2, 4, 5, 3)),
    ]
)  # fmt: skip

NORMS = NORM + FUSED
CASES = ARITHMETIC + MATMUL + REDUCTIONS + SHAPES + ELEMENTWISE + LOSSES + CONV + NORMS + POOL
assert len({c.key for c in CASES}) == len(CASES), "two cases share a key"
