"""What goes wrong with GPUs is said in one line, with the remedy; and `minires` works on one."""

from __future__ import annotations

import builtins
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import minires as mr
from minires import backend
from tests.commands import TINY

__all__: list[str] = []

pytestmark = pytest.mark.gpu


def fails_with(message: str) -> None:
    with pytest.raises(RuntimeError) as caught:
        mr.tensor([1.0], device="cuda")
    assert str(caught.value) == f"device is 'cuda' but {message}"
    assert not mr.cuda_available()


@pytest.mark.parametrize(
    ("versions", "message"),
    [
        (
            (13000, 12080),
            "CuPy is built for CUDA 13 and the driver for CUDA 12: "
            "pip install 'minires[cuda12]', or a newer driver",
        ),
        (
            (13000, 0),
            "there is no NVIDIA driver on this machine: install it (nvidia.com/drivers)",
        ),
        (
            (12000, 13000),
            "the driver finds no GPU: look at nvidia-smi and CUDA_VISIBLE_DEVICES",
        ),
    ],
)
def test_no_gpu_and_cupy_for_another_cuda(cupy: Any, monkeypatch, versions, message: str):
    monkeypatch.setattr(cupy, "is_available", lambda: False)
    monkeypatch.setattr(cupy.cuda.runtime, "runtimeGetVersion", lambda: versions[0])
    monkeypatch.setattr(cupy.cuda.runtime, "driverGetVersion", lambda: versions[1])
    fails_with(message)


def test_no_compiler(cupy: Any, monkeypatch):
    def missing() -> Any:
        raise RuntimeError("Failure finding libnvrtc.so.13")

    backend._check_libraries.cache_clear()
    monkeypatch.setattr(cupy.cuda.nvrtc, "getVersion", missing)
    fails_with("CUDA's compiler NVRTC is missing: pip install 'cupy-cuda13x[ctk]'")


def test_no_cublas(cupy: Any, monkeypatch):
    def missing(name: str) -> Any:
        raise ImportError(f"Failure finding libcublas.so.13 for {name}")

    backend._check_libraries.cache_clear()
    monkeypatch.setattr(backend.importlib, "import_module", missing)
    fails_with("CUDA's library cuBLAS is missing: pip install 'cupy-cuda13x[ctk]'")


def test_a_compiler_that_does_not_fit(cupy: Any, standin: Any):
    from cupy.cuda.compiler import CompileException

    error = CompileException("cannot open source file", "", "k.cu", (), "nvrtc")
    assert "pip install -U 'cupy-cuda13x[ctk]'" in backend.gpu_remedy(error)


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (ModuleNotFoundError("No module"), "CuPy is not installed: pip install 'minires[cuda13]'"),
        (
            ImportError("libcublas.so.12: cannot open\nmore lines"),
            "CuPy cannot be loaded (libcublas.so.12: cannot open): install another build of it",
        ),
    ],
)
def test_no_cupy(monkeypatch, error: ImportError, message: str):
    load = builtins.__import__

    def without(name: str, *args: Any, **kwargs: Any) -> Any:
        if name == "cupy":
            raise error
        return load(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    fails_with(message)


def test_train_and_evaluate_on_the_device(cupy: Any, run: Any, tmp_path: Path):
    folder = tmp_path / "run"
    assert run("train", *TINY, "--device", "cuda", "--out", folder, "--quiet")[0] == 0
    assert json.loads((folder / "config.json").read_text())["device"] == "cuda"
    code, out, _ = run("evaluate", folder, "--device", "cuda", "--limit", "8", "--json")
    assert code == 0
    assert 0 <= json.loads(out.splitlines()[-1])["accuracy"] <= 1


def test_out_of_memory(cupy: Any, standin: Any, fails: Any, tmp_path: Path):
    cupy.get_default_memory_pool().free_all_blocks()
    words = ("train", *TINY, "--device", "cuda", "--out", tmp_path / "run", "--quiet")
    with standin.memory_limit(2**20):
        assert "the GPU's memory is full: a smaller batch needs less" in fails(1, *words)
    x = cupy.ones(3)  # and it works again
    np.testing.assert_array_equal((x + x).get(), 2)


def test_memory_that_is_full_elsewhere(cupy: Any):
    """Pinned memory, and what CUDA and cuBLAS take for themselves."""
    from cupy_backends.cuda.libs.cublas import CUBLASError

    for error in (cupy.cuda.runtime.CUDARuntimeError(2), CUBLASError(3)):
        assert "a smaller batch" in backend.gpu_remedy(error), error
    for error in (cupy.cuda.runtime.CUDARuntimeError(700), CUBLASError(13)):
        assert "start again" in backend.gpu_remedy(error), error


def test_a_lost_device(cupy: Any, standin: Any, fails: Any, tmp_path: Path):
    words = ("train", *TINY, "--device", "cuda", "--out", tmp_path / "run", "--quiet")
    with standin.lost():
        error = fails(1, *words)
    assert "an illegal memory access was encountered; the GPU failed: start again" in error
