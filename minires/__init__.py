"""minires: residual networks from scratch, on NumPy or CuPy.

    import minires as mr
    from minires import nn, optim, models, data
    import minires.functional as F

`tensor` makes a Tensor, `no_grad` stops recording, `gradcheck` checks gradients against numerical
derivatives; networks are in `models`, their parts in `nn`, and `minires.train` is the trainer
behind the `minires` command.
"""

from . import ahead, data, errors, functional, models, nn, optim, weights
from .autograd import detect_anomaly, enable_grad, is_grad_enabled, no_grad
from .backend import cuda_available, precision
from .checking import gradcheck
from .graph import graph
from .kernels.compile_cache import at_first
from .kernels.memory import set_threads, threads
from .random import manual_seed
from .tensor import Tensor, tensor
from .version import __version__

__all__ = [
    "Tensor",
    "__version__",
    "cuda_available",
    "data",
    "detect_anomaly",
    "enable_grad",
    "errors",
    "functional",
    "gradcheck",
    "graph",
    "is_grad_enabled",
    "manual_seed",
    "models",
    "nn",
    "no_grad",
    "optim",
    "precision",
    "set_threads",
    "tensor",
    "threads",
    "weights",
]

at_first.append(ahead.begin)
