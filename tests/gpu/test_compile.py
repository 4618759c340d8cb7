"""Every kernel compiles for every architecture, keeps its numbers in registers, and in few enough
that the GPU can run many warps."""

from __future__ import annotations

import pytest

from minires.kernels.launch import FOLDER, Source
from tests.gpu import compiler

__all__: list[str] = []

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(
        not compiler.available(), reason="needs NVRTC: pip install nvidia-cuda-nvrtc"
    ),
]

# Registers a thread: with 64, four blocks of 256 threads share the 65536 of a multiprocessor.
CEILING = 64
# A thread has a whole tile; two or three blocks are left.
WIDER = {"winograd_inputs": 80, "winograd_outputs": 96}
FILES = sorted(file.name for file in FOLDER.glob("*.cu"))


def kernel_of(source: Source, mangled: str) -> str:
    """A kernel's name from what the linker calls it."""
    return max((name for name in source.signatures if name in mangled), key=len)


def test_there_are_kernels():
    assert "im2col.cu" in FILES


@pytest.mark.parametrize("architecture", compiler.ARCHITECTURES)
@pytest.mark.parametrize("file", FILES)
def test_compiles_without_spills(file: str, architecture: int):
    source = Source(file)
    names = list(dict.fromkeys([*source.names("float"), *source.names("double")]))
    warnings, usages = compiler.compile_for(architecture, source.text, names)
    assert not warnings
    assert len(usages) == len(names)
    for usage in usages:
        assert not usage.spilled, usage
        assert not usage.stack, usage
        assert usage.registers <= WIDER.get(kernel_of(source, usage.kernel), CEILING), usage


def test_a_spill_would_be_seen():
    """With too many numbers for the registers, the compiler's output says so."""
    source = """
    __global__ void __launch_bounds__(1024, 2) greedy(float* x) {
      float kept[64];
      for (int i = 0; i < 64; ++i) kept[i] = x[i * 1024 + threadIdx.x];
      __syncthreads();
      for (int i = 0; i < 64; ++i) x[i * 1024 + threadIdx.x] = kept[i] * kept[63 - i];
    }
    """
    _, (usage,) = compiler.compile_for(90, source, ["greedy"])
    assert usage.spilled


def test_errors_of_the_compiler_are_shown():
    with pytest.raises(RuntimeError, match='identifier "nothing" is undefined'):
        compiler.compile_for(90, "__global__ void f(int* x) { *x = nothing; }", ["f"])
