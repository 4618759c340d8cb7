"""Runs one sample kernel, with a fault switched on by its macro; a child of the emulator's tests.

python -m tests.gpu.emulator.faulty KERNEL [MACRO]
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

from tests.gpu import emulator

__all__ = ["SAMPLES", "main"]

SAMPLES = Path(__file__).with_name("samples.cu").read_text()
NAMES = ["axpy<float>", "axpy<double>", "row_sums<float>", "product", "histogram"]
NAMES += ["some_return", "two_barriers", "wrong_mask", "shifts", "exchanges"]


def main(kernel: str, *macros: str) -> None:
    """Launch the kernel on small arrays."""
    module = emulator.Module(SAMPLES, NAMES, dict.fromkeys(macros, 1))
    a = np.ones((3, 8, 16), np.float32)
    ints = np.zeros(64, np.int32)
    launches = {
        "axpy<float>": ((7,), (64,), (a, a.copy(), a.size, 2.0)),
        "row_sums<float>": ((2,), (64,), (a.reshape(2, -1), np.zeros(2, np.float32), 192)),
        "product": ((2, 2), (8, 8), (a[0], a[1], np.zeros((9, 9), np.float32), 9, 9, 14)),
        "histogram": ((1,), (64,), (ints, ints.copy(), 64)),
        "shifts": ((1,), (32,), (ints, 40)),
    }
    grid, block, arguments = launches[kernel]
    module.launch(kernel, grid, block, arguments, shared=2 * 4 * 64 if kernel == "product" else 0)


if __name__ == "__main__":
    main(*sys.argv[1:])
