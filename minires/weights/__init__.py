"""Weight files: safetensors and PyTorch's two formats in, safetensors and .pth out; nothing in a
file is ever executed.

>>> import os, tempfile
>>> from minires import nn, weights
>>> path = os.path.join(tempfile.mkdtemp(), "layer.safetensors")
>>> weights.save(nn.Linear(4, 2), path)
>>> print(weights.load(nn.Linear(4, 2), path))
2 matched
"""

from .files import WeightFile, atomic_write
from .layout import to_file, to_memory
from .load import Report, file_arrays, load, load_file, save
from .names import Guess, guess
from .onnx import save_onnx
from .pth import save_pth
from .safetensors import save_safetensors

__all__ = [
    "Guess",
    "Report",
    "WeightFile",
    "atomic_write",
    "file_arrays",
    "guess",
    "load",
    "load_file",
    "save",
    "save_onnx",
    "save_pth",
    "save_safetensors",
    "to_file",
    "to_memory",
]
