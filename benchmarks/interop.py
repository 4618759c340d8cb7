"""Weights from PyTorch and back: logits, names and bits. Needs torch, onnx and onnxruntime.

python -m benchmarks.interop                                       # torchvision's layouts
python -m benchmarks.interop resnet20 --published FOLDER           # and published weights

For each network: its state from PyTorch, by torch.save in both formats, gives PyTorch's logits
here; minires -> .pth -> PyTorch -> minires and minires -> safetensors -> minires keep every bit;
minires -> ONNX -> ONNX Runtime, BatchNorm folded or not, gives our logits. Errors are relative to
the largest logit. torchvision's networks are written in plain PyTorch (tests/reference/torch_nets).
"""
# pyright: reportMissingImports=false

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

import minires as mr
from minires import models, nn, weights
from tests import tolerances
from tests.reference.interop import PUBLISHED, TORCHVISION, images

__all__ = ["Row", "main", "rows"]


@dataclass(frozen=True)
class Row:
    """One comparison; an error of a comparison of bits is a count of tensors that differ."""

    network: str
    what: str
    error: float
    bound: float

    @property
    def ok(self) -> bool:
        """Whether the error is inside its bound; NaN is not."""
        return bool(self.error <= self.bound)

    def __str__(self) -> str:
        mark = "" if self.ok else "  OUT"
        return f"{self.network:16} {self.what:46} {self.error:9.2g} {self.bound:7.0e}{mark}"


def blank(name: str, classes: int) -> Any:
    """Our network, its weights about to be loaded."""
    with nn.init.skip():
        return models.build(name, classes, None if name in PUBLISHED else "imagenet")


def logits(model: Any, x: np.ndarray) -> np.ndarray:
    """What our model says in evaluation."""
    with mr.no_grad():
        return model.eval()(x).numpy()


def difference(a: np.ndarray, b: np.ndarray) -> float:
    """The largest, relative to the largest of `b`."""
    return float(np.abs(a - b).max() / np.abs(b).max())


def differing(a: dict[str, np.ndarray], b: dict[str, np.ndarray]) -> float:
    """How many tensors are not bit for bit the same in both."""
    same = {n for n in a if n in b and a[n].dtype == b[n].dtype and a[n].shape == b[n].shape}
    names = a.keys() | b.keys()
    return float(sum(n not in same or a[n].tobytes() != b[n].tobytes() for n in names))


def rows(name: str, folder: Path, size: int, published: Path | None = None) -> Iterator[Row]:
    """The comparisons of one network, with images of `size` pixels."""
    import torch

    from tests.reference.make_interop import build, loaded
    from tests.reference.make_interop import published as read_published

    classes = 10 if published else 1000
    twin = build(name, classes)
    if published:
        twin.load_state_dict(read_published(published), strict=False)
    else:
        loaded(twin)
    x = images(size).astype(np.float32)
    with torch.no_grad():
        theirs = twin(torch.from_numpy(x).permute(0, 3, 1, 2)).numpy()
    state = {n: t.numpy() for n, t in twin.state_dict().items()}
    model = blank(name, classes)
    shapes = {n: a.shape for n, a in weights.file_arrays(model).items()}
    wrong = shapes.items() ^ {n: a.shape for n, a in state.items()}.items()
    yield Row(name, "names and shapes that differ from PyTorch's", len(wrong), 0)
    for zipped in (True, False):
        path = folder / "theirs.pth"
        torch.save(twin.state_dict(), path, _use_new_zipfile_serialization=zipped)
        model = blank(name, classes)
        weights.load(model, path)
        lost = differing(weights.file_arrays(model), state)
        kind = "zip" if zipped else "older format"
        yield Row(name, f"tensors changed from torch.save ({kind})", lost, 0)
    if published:
        model = blank(name, classes)
        weights.load(model, published)
    ours = logits(model, x)
    yield Row(name, "logits against PyTorch's", difference(ours, theirs), tolerances.INTEROP)
    yield from _round_trips(name, model, ours, x, folder)


def _round_trips(
    name: str, model: Any, ours: np.ndarray, x: np.ndarray, folder: Path
) -> Iterator[Row]:
    import torch

    from tests.reference.make_interop import build

    classes, state = model.num_classes, weights.file_arrays(model)
    weights.save(model, folder / "ours.pth", format="pth")
    again = build(name, classes)
    again.load_state_dict(torch.load(folder / "ours.pth", weights_only=True))
    torch.save(again.state_dict(), folder / "again.pth")
    weights.save(model, folder / "ours.safetensors")
    ways = {"again.pth": ".pth -> PyTorch", "ours.safetensors": "safetensors"}
    for file, way in ways.items():
        back = blank(name, classes)
        weights.load(back, folder / file)
        lost = differing(weights.file_arrays(back), state)
        yield Row(name, f"tensors changed by {way} -> minires", lost, 0)
        error = difference(logits(back, x), ours)
        yield Row(name, f"logits after {way} -> minires", error, tolerances.EXPORTED)
    yield from _onnx(name, model, ours, x, folder / "ours.onnx")


def _onnx(name: str, model: Any, ours: np.ndarray, x: np.ndarray, path: Path) -> Iterator[Row]:
    import onnx
    import onnxruntime

    for fold in (False, True):
        weights.save_onnx(model, path, size=x.shape[1], fold=fold)
        made = onnx.load(path)
        onnx.checker.check_model(made, full_check=True)
        if not fold:
            kept = {t.name: onnx.numpy_helper.to_array(t) for t in made.graph.initializer}
            state = weights.file_arrays(model)
            used = {n: a for n, a in state.items() if not n.endswith("num_batches_tracked")}
            lost = differing(used, {n: kept[n] for n in used if n in kept})
            yield Row(name, "tensors changed by ONNX", lost, 0)
        session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
        given = np.ascontiguousarray(x.transpose(0, 3, 1, 2))
        (theirs,) = session.run(None, {"input": given})
        how = "folded" if fold else "not folded"
        error = difference(theirs, ours)
        yield Row(name, f"logits of ONNX Runtime, {how}", error, tolerances.EXPORTED)


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the table; 0 when every row is inside its bound, else 1."""
    parser = argparse.ArgumentParser(prog="benchmarks.interop", description="Swap with PyTorch.")
    parser.add_argument("names", nargs="*", help=f"of {', '.join([*TORCHVISION, *PUBLISHED])}")
    parser.add_argument("--published", type=Path, metavar="DIR", help="folder of their weights")
    parser.add_argument("--size", type=int, default=64, help="side of torchvision's images (64)")
    parser.add_argument("--json", action="store_true", help="one JSON object instead of the table")
    options = parser.parse_args(arguments)
    known = [*TORCHVISION, *(PUBLISHED if options.published else ())]
    names = options.names or known
    if unknown := [name for name in names if name not in known]:
        parser.error(f"{unknown[0]} is not one of {', '.join(known)}; see --published")
    found = []
    for name in names:
        with tempfile.TemporaryDirectory() as folder:
            file = options.published / PUBLISHED[name] if name in PUBLISHED else None
            size = 32 if file else options.size
            for row in rows(name, Path(folder), size, file):
                found.append(row)
                if not options.json:
                    print(row, flush=True)
    bad = [row for row in found if not row.ok]
    if options.json:
        print(json.dumps({"ok": not bad, "rows": [asdict(row) | {"ok": row.ok} for row in found]}))
    else:
        print(f"{len(found)} rows, {len(bad)} out of bounds")
    return 1 if bad or not found else 0


if __name__ == "__main__":
    sys.exit(main())
