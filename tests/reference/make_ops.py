"""Ask PyTorch (float64, CPU) for the output and the gradients of every op case; writes ops.npz.

    python -m tests.reference.make_ops        # from the repository's root, where torch is installed

The tensors are this project's, (n, h, w, c) and (r, s, c, k); each function below permutes inside,
so that autograd returns gradients in this project's layout.
"""
# pyright: reportMissingImports=false

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import torch.nn.functional as TF

from . import pure
from .calls import OpCase, upstream
from .cases import CASES
from .store import save

__all__ = ["OPS", "evaluate", "main"]


def nchw(x: torch.Tensor) -> torch.Tensor:
    return x.permute(0, 3, 1, 2)


def nhwc(x: torch.Tensor) -> torch.Tensor:
    return x.permute(0, 2, 3, 1)


def kcrs(w: torch.Tensor) -> torch.Tensor:
    return w.permute(3, 2, 0, 1)


def conv2d(x, w, b, **params):
    return nhwc(TF.conv2d(nchw(x), kcrs(w), b, **params))


def batch_norm(x, gamma, beta, *, training, running=None, eps=1e-5):
    mean, var = (None, None) if training or running is None else running
    if x.ndim == 2:
        return TF.batch_norm(x, mean, var, gamma, beta, training, eps=eps)
    return nhwc(TF.batch_norm(nchw(x), mean, var, gamma, beta, training, eps=eps))


def conv_bias(x, w, b, residual, *, relu, **params):
    y = conv2d(x, w, b, **params)
    y = y if residual is None else y + residual
    return torch.relu(y) if relu else y


def conv_norm(x, w, gamma, beta, residual, *, running, training, relu, **params):
    y = batch_norm(conv2d(x, w, None, **params), gamma, beta, training=training, running=running)
    y = y if residual is None else y + residual
    return torch.relu(y) if relu else y


def pooled(function: Callable[..., torch.Tensor]) -> Callable[..., torch.Tensor]:
    return lambda x, **params: nhwc(function(nchw(x), **params))


def reduced(function: Callable[..., torch.Tensor]) -> Callable[..., torch.Tensor]:
    def run(x, *, axis=None, keepdims=False, ddof=0):
        every = tuple(range(x.ndim)) if axis is None else axis
        more = {"correction": ddof} if function is torch.var else {}
        return function(x, dim=every, keepdim=keepdims, **more)

    return run


def pad(x, *, widths, value=0):
    return TF.pad(x, [side for pair in reversed(widths) for side in pair], value=value)


def getitem(x, *, index):
    listed = tuple(torch.tensor(one) if isinstance(one, tuple) else one for one in index)
    return x[listed]


OPS: dict[str, Callable[..., torch.Tensor]] = {
    "neg": torch.neg,
    "add": torch.add,
    "sub": torch.sub,
    "mul": torch.mul,
    "div": torch.div,
    "pow": lambda x, exponent: x**exponent,
    "power": torch.pow,
    "maximum": torch.maximum,
    "minimum": torch.minimum,
    "matmul": torch.matmul,
    "linear": lambda x, w, b: TF.linear(x, w.T, b),
    "sum": reduced(torch.sum),
    "mean": reduced(torch.mean),
    "var": reduced(torch.var),
    "max": reduced(torch.amax),
    "min": reduced(torch.amin),
    "reshape": lambda x, shape: x.reshape(shape),
    "flatten": lambda x, start_axis: x.flatten(start_axis),
    "transpose": lambda x, axes=None: x.permute(axes or tuple(range(x.ndim))[::-1]),
    "squeeze": lambda x, axis: x.squeeze(axis),
    "expand_dims": lambda x, axis: x.unsqueeze(axis),
    "broadcast_to": lambda x, shape: x.broadcast_to(shape),
    "pad": pad,
    "getitem": getitem,
    "concatenate": lambda xs, axis: torch.cat(xs, axis),
    "stack": lambda xs, axis: torch.stack(xs, axis),
    "where": torch.where,
    "exp": torch.exp,
    "log": torch.log,
    "sqrt": torch.sqrt,
    "abs": torch.abs,
    "relu": torch.relu,
    "gelu": TF.gelu,
    "silu": TF.silu,
    "sigmoid": torch.sigmoid,
    "tanh": torch.tanh,
    "leaky_relu": lambda x, slope: TF.leaky_relu(x, slope),
    "clip": lambda x, low, high: torch.clip(x, low, high),
    "dropout": lambda x, p, training: TF.dropout(x, p, training),
    "softmax": lambda x, axis: torch.softmax(x, axis),
    "log_softmax": lambda x, axis: torch.log_softmax(x, axis),
    "cross_entropy": TF.cross_entropy,
    "mse_loss": TF.mse_loss,
    "conv2d": conv2d,
    "conv_bias": conv_bias,
    "batch_norm": batch_norm,
    "conv_norm": conv_norm,
    "max_pool2d": pooled(TF.max_pool2d),
    "avg_pool2d": pooled(TF.avg_pool2d),
    "adaptive_avg_pool2d": pooled(TF.adaptive_avg_pool2d),
    "global_avg_pool2d": lambda x: x.mean((1, 2)),
    "global_max_pool2d": lambda x: x.amax((1, 2)),
}


def to_torch(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        tensor = torch.from_numpy(value.copy())
        return tensor.requires_grad_(tensor.is_floating_point())
    if isinstance(value, list):
        return [to_torch(one) for one in value]
    return value


def evaluate(case: OpCase) -> dict[str, np.ndarray]:
    """{"out", "d0": the gradient of input 0, "d0.1": of its second part, "mean", "var"}."""
    inputs = [to_torch(a) for a in case.arrays()]
    params: dict[str, Any] = {}
    for name, value in case.parameters().items():
        array = isinstance(value, np.ndarray)
        params[name] = torch.from_numpy(value) if array else value
    if "running" in params:
        params["running"] = tuple(torch.from_numpy(a) for a in params["running"])
    arguments = inputs
    if case.op == "where":
        condition = pure.uniform(f"{case.key}.condition", case.inputs[0].shape) > 0
        arguments = [torch.from_numpy(condition), *inputs]
    out = OPS[case.op](*arguments, **params)
    out.backward(torch.from_numpy(upstream(case, tuple(out.shape))))
    found = {"out": out.detach().numpy()}
    for i, x in enumerate(inputs):
        for j, one in enumerate(x) if isinstance(x, list) else [(None, x)]:
            if one is not None and one.requires_grad:
                found[f"d{i}" if j is None else f"d{i}.{j}"] = one.grad.numpy()
    if case.params.get("training") and case.op in ("batch_norm", "conv_norm"):
        x = inputs[0].detach()
        x = x if case.op == "batch_norm" else conv2d(x, inputs[1].detach(), None, **geometry(case))
        axes = tuple(range(x.ndim - 1))
        found["mean"] = x.mean(axes).numpy()
        found["var"] = x.var(axes, correction=0).numpy()
    return found


def geometry(case: OpCase) -> dict[str, Any]:
    return {
        k: v for k, v in case.params.items() if k in ("stride", "padding", "dilation", "groups")
    }


def main() -> None:
    arrays = {
        f"{case.key}/{name}": array for case in CASES for name, array in evaluate(case).items()
    }
    save("ops", arrays, f"PyTorch {torch.__version__}, float64, CPU")
    print(f"{len(CASES)} cases, {len(arrays)} arrays")


if __name__ == "__main__":
    main()
