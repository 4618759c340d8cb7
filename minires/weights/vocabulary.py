"""The names that PyTorch's pickles may use, and the records that stand for what they would make.

None of these names is ever looked up: being listed here only means not being refused.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

__all__ = ["KNOWN", "STORAGES", "TENSORS", "Inert", "Storage", "TensorRef"]

STORAGES = {
    "DoubleStorage": "F64",
    "FloatStorage": "F32",
    "HalfStorage": "F16",
    "BFloat16Storage": "BF16",
    "LongStorage": "I64",
    "IntStorage": "I32",
    "ShortStorage": "I16",
    "CharStorage": "I8",
    "ByteStorage": "U8",
    "BoolStorage": "BOOL",
}
# Harmless neighbours of weights in checkpoints, kept as a name without content
INERT = {
    "_codecs.encode",
    "argparse.Namespace",
    "collections.Counter",
    "collections.defaultdict",
    "numpy.dtype",
    "numpy.ndarray",
    *(f"numpy.{c}.multiarray.{f}" for c in ("core", "_core") for f in ("scalar", "_reconstruct")),
    *(f"numpy.{c}.numeric._frombuffer" for c in ("core", "_core")),
    "torch.device",
    "torch.Tensor",
    "torch.nn.parameter.Parameter",
    *(f"{b}.{t}" for b in ("builtins", "__builtin__") for t in ("dict", "int", "list", "set")),
    *(f"torch.{kind}{bits}" for kind in ("int", "uint", "float") for bits in (8, 16, 32, 64)),
    *("torch.bfloat16", "torch.bool", "torch.half", "torch.float", "torch.double", "torch.long"),
}
TENSORS = {  # function name -> how many of its arguments describe the tensor
    "torch._utils._rebuild_tensor": 4,
    "torch._utils._rebuild_tensor_v2": 4,
    "torch._utils._rebuild_parameter": 1,
    "torch._utils._rebuild_parameter_with_state": 1,
}
KNOWN = INERT | set(TENSORS) | {"collections.OrderedDict", "torch.Size"}
KNOWN |= {f"torch.{name}" for name in STORAGES} | {"torch._tensor._rebuild_from_type_v2"}


@dataclass(frozen=True)
class Inert:
    """A global, or what calling it would have made: only the name is kept."""

    name: str


@dataclass(frozen=True)
class Storage:
    """A run of `count` numbers of type `code` in the file; a tensor may use those from `start`."""

    code: str
    key: str
    count: int
    start: int = 0


@dataclass(frozen=True)
class TensorRef:
    """A tensor not yet read; nothing in it is checked but the storage's type."""

    storage: Storage
    offset: Any = field(repr=False)
    shape: Any = field(repr=False)
    stride: Any = field(repr=False)
