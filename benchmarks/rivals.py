"""The same steps in PyTorch and in ONNX Runtime, with the weights of a minires model.

A step is a function without arguments that returns the numbers to compare: in training the loss and
the outputs, else the outputs.
"""
# pyright: reportMissingImports=false

from __future__ import annotations

import getpass
import importlib.metadata
import io
import os
import tempfile
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from minires.weights import to_file

__all__ = ["SGD", "VARIANTS", "Step", "rival_step", "rival_version"]

Step = Callable[[], np.ndarray]
# the rival is the fastest of its variants
VARIANTS = {"torch": ("eager", "compile"), "onnxruntime": ("default",)}
SGD = {"lr": 0.01, "momentum": 0.9, "weight_decay": 5e-4, "nesterov": True}


def rival_version(against: str) -> str:
    """The installed version of PyTorch or ONNX Runtime; a line on stderr where there is none."""
    try:
        return importlib.metadata.version(against)
    except importlib.metadata.PackageNotFoundError:
        hint = "pip install -e '.[bench]'"
        raise SystemExit(f"--against {against}: {against} is not installed; {hint}") from None


def rival_step(
    against: str,
    variant: str,
    network: tuple[str, dict[str, Any], dict[str, np.ndarray]],
    mode: str,
    images: np.ndarray,
    labels: np.ndarray,
    threads: int,
    dtype: str = "float32",
) -> Step:
    """A step of `network` (name, arguments, state) on images (n, h, w, 3), labels (n,); PyTorch
    with autocast for dtype "bf16".
    """
    _keep_compiled_apart()
    import torch

    torch.set_num_threads(threads)
    autocast = partial(torch.autocast, "cpu", torch.bfloat16, enabled=dtype == "bf16")
    model = _torch_model(*network)
    x = torch.from_numpy(images).permute(0, 3, 1, 2)  # memory stays channels-last
    if against == "onnxruntime":
        return _onnx_infer(model.eval(), x, threads)
    model = model.to(memory_format=torch.channels_last)
    call = torch.compile(model) if variant == "compile" else model
    if mode == "train":
        return _torch_train(call, model, x, torch.from_numpy(labels), autocast)
    model.eval()

    def infer() -> np.ndarray:
        with torch.inference_mode(), autocast():
            return call(x).float().numpy()

    return infer


def _keep_compiled_apart() -> None:
    """A folder for torch.compile's code for each instruction set. With one folder, PyTorch 2.13
    held to AVX2 takes what it compiled for AVX-512, and computes something else or crashes.
    """
    held = os.environ.get("ATEN_CPU_CAPABILITY", "default")
    folder = Path(tempfile.gettempdir()) / f"torchinductor_{getpass.getuser()}_{held}"
    os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(folder))


def _torch_model(name: str, arguments: dict[str, Any], state: dict[str, np.ndarray]) -> Any:
    import torch

    from tests.reference.make_networks import BUILD

    model = BUILD[name](**arguments).float()
    tensors = {key: torch.from_numpy(to_file(key, a).copy()) for key, a in state.items()}
    model.load_state_dict(tensors)
    return model


def _torch_train(call: Any, model: Any, x: Any, y: Any, autocast: Any) -> Step:
    import torch

    optimiser = torch.optim.SGD(model.parameters(), foreach=True, **SGD)

    def train() -> np.ndarray:
        with autocast():
            out = call(x)
            loss = torch.nn.functional.cross_entropy(out, y)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        return np.append(loss.item(), out.detach().float().numpy())

    return train


def _onnx_infer(model: Any, x: Any, threads: int) -> Step:
    """The model through ONNX, in memory; the session folds BatchNorm and picks its own layout."""
    import onnxruntime
    import torch

    file, x = io.BytesIO(), x.contiguous()  # (n, c, h, w): what ONNX's operators are defined on
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter without `dynamo` needs no further package
        torch.onnx.export(model, (x,), file, input_names=["x"], dynamo=False)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(
        file.getvalue(), options, providers=["CPUExecutionProvider"]
    )
    feed = {"x": x.numpy()}
    return lambda: session.run(None, feed)[0]
