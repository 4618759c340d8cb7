"""Weight files: safetensors and PyTorch's two formats in, safetensors out; nothing in a file is
ever executed.

>>> import os, tempfile
>>> from minires import nn, weights
>>> path = os.path.join(tempfile.mkdtemp(), "layer.safetensors")
>>> weights.save(nn.Linear(4, 2), path)
>>> print(weights.load(nn.Linear(4, 2), path))
2 matched
"""

from .files import atomic_write
from .layout import to_file, to_memory
from .load import Report, WeightFile, load, load_file, save
from .safetensors import save_safetensors

__all__ = [
    "Report",
    "WeightFile",
    "atomic_write",
    "load",
    "load_file",
    "save",
    "save_safetensors",
    "to_file",
    "to_memory",
]
