"""Logits and stage outputs of torchvision's layouts, from PyTorch; writes interop.npz.

python -m tests.reference.make_interop [FOLDER with the published weights]
"""
# pyright: reportMissingImports=false

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from .interop import KEPT, PUBLISHED, TORCHVISION, file_state, images, listing
from .store import save
from .torch_nets import Basic, Bottleneck, Cifar, ResNet

__all__ = ["build", "loaded", "main", "published"]

DEPTHS = {"resnet18": (2, 2, 2, 2), "resnet101": (3, 4, 23, 3), "resnet152": (3, 8, 36, 3)}
GROUPED: dict[str, dict[str, int]] = {
    "resnext50_32x4d": {"groups": 32, "width": 4},
    "wide_resnet50_2": {"width": 128},
}


def build(name: str, classes: int = 1000) -> nn.Module:
    """torchvision's network of that name, or He's for CIFAR, in plain PyTorch."""
    if name in PUBLISHED:
        return Cifar(int(name[-2:]), classes).eval()
    block = Basic if name in ("resnet18", "resnet34") else Bottleneck
    depths = DEPTHS.get(name, (3, 4, 6, 3))
    return ResNet(block, depths, classes, "imagenet", **GROUPED.get(name, {})).eval()


def loaded(model: nn.Module, state: Mapping[str, np.ndarray] | None = None) -> nn.Module:
    """The model with a state in the files' layout, its pure one unless given."""
    if state is None:
        state = file_state({name: tuple(t.shape) for name, t in model.state_dict().items()})
    model.load_state_dict({name: torch.from_numpy(a) for name, a in state.items()})
    return model


def published(path: Path) -> dict[str, Any]:
    """The published weights, by PyTorch's own reader, under our twin's names."""
    state = torch.load(path, weights_only=True, map_location="cpu")["state_dict"]
    return {n.removeprefix("module.").replace("linear.", "fc."): t for n, t in state.items()}


def measured(name: str, model: nn.Module, x: np.ndarray) -> dict[str, np.ndarray]:
    """{name/what: numbers}: logits, stage outputs (n, h, w, c), names and shapes."""
    found: dict[str, np.ndarray] = {}
    for stage, layer in model.named_children():
        if stage.startswith("layer"):

            def keep(_module: Any, _given: Any, y: torch.Tensor, stage: str = stage) -> None:
                found[f"{name}/{stage}"] = y.permute(0, 2, 3, 1).numpy()

            layer.register_forward_hook(keep)
    with torch.no_grad():
        found[f"{name}/logits"] = model(torch.from_numpy(x).permute(0, 3, 1, 2)).numpy()
    shapes = {n: tuple(t.shape) for n, t in model.state_dict().items()}
    found[f"{name}/names"] = np.array([listing(shapes)])
    print(name, sum(p.numel() for p in model.parameters()), found[f"{name}/logits"].std())
    return found


def main() -> None:
    found: dict[str, np.ndarray] = {}
    for name in TORCHVISION:
        found |= measured(name, loaded(build(name)).double(), images())
    for name, file in PUBLISHED.items() if len(sys.argv) > 1 else ():
        model = build(name, 10)
        model.load_state_dict(published(Path(sys.argv[1]) / file), strict=False)
        found |= measured(name, model.double(), images(32))
    save("interop", found, f"PyTorch {torch.__version__}, float64, CPU", kept=KEPT)


if __name__ == "__main__":
    main()
