"""`minires device-test` runs whole on the stand-in device; without a GPU one line says why not."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks import gpu as benchmark
from minires import backend
from minires.gpu import report, samples, suite
from minires.gpu.rates import precisions
from minires.gpu.works import works
from minires.kernels.dispatch import KERNELS
from tests.commands import Run

__all__: list[str] = []

TINY = ("device-test", "--no-tests", "--tiny", "--batch", "2")


@pytest.mark.gpu
def test_the_whole_command(cupy: Any, run: Run):
    code, out, err = run(*TINY, "--json")
    found = json.loads(out.splitlines()[-1])
    assert code == 0, err
    assert found["passed"]
    assert found["samples"]["wrong"] == []
    assert found["samples"]["compared"] > 2 * len(KERNELS)
    assert "the times mean nothing" in found["note"]
    assert set(found["product_tflop_s"]) == {*precisions(), "float64"}
    for row in found["ops"]:
        assert row["ms"] > 0, row
        assert row["floor_ms"] > 0, row
    assert [row["precision"] for row in found["steps"]] == precisions()
    assert all(np.isfinite(row["losses"]).all() for row in found["steps"])
    shown = list(report.lines(found))
    assert shown[1] == found["note"]
    assert shown[-1] == "passed"
    assert sum("conv2d" in line for line in shown) == sum("conv2d" in r["op"] for r in found["ops"])


@pytest.mark.gpu
def test_a_wrong_kernel_is_found(cupy: Any, monkeypatch: pytest.MonkeyPatch):
    twin, serves = KERNELS["drop"].twins["cuda"]

    def wrong(x: Any, **params: Any) -> Any:
        return twin(x, **params) * np.float32(1.001)

    monkeypatch.setitem(KERNELS["drop"].twins, "cuda", (wrong, serves))
    names = {s.name.partition("(")[0] for s in samples.compare_samples() if not s.passed}
    assert "kernel drop" in names
    assert names <= {"kernel drop", "dropout"}


@pytest.mark.gpu
def test_rows_count_bytes_and_operations(cupy: Any):
    rows = {(w.name, w.shape): w for w in works(2, 28)}
    layer = rows["conv2d", "2x8x8x3 * 7x7x3x64"]
    assert layer.operations == 2 * (2 * 4 * 4 * 64) * 7 * 7 * 3
    update = next(w for w in rows.values() if w.name == "adam_step")
    assert update.moved == 7 * update.arguments[0].nbytes


@pytest.mark.parametrize("arguments", [("device-test",), TINY])
def test_without_a_gpu_one_line_says_what_is_missing(
    fails: Any, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...]
):
    def missing() -> Any:
        raise RuntimeError("device is 'cuda' but there is none: pip install it")

    monkeypatch.setattr(backend, "_cupy", missing)
    error = fails(1, *arguments)
    assert error == "minires: error: device is 'cuda' but there is none: pip install it\n"


def test_wrong_options(fails: Any):
    assert "--batch: is 0 but must be at least 1" in fails(2, "device-test", "--batch", "0")


def test_the_benchmark_says_the_same(monkeypatch, capsys: pytest.CaptureFixture[str]):
    monkeypatch.setattr(benchmark, "device_test", lambda batch, tests, tiny: {"passed": batch > 1})
    assert [benchmark.main(["--batch", str(n)]) for n in (1, 2)] == [1, 0]
    assert json.loads(capsys.readouterr().out.splitlines()[1].join("{}")) == {"passed": False}


def test_the_tests_of_a_checkout(tmp_path: Path, monkeypatch, capsys):
    (tmp_path / "test_it.py").write_text(
        "import os\n"
        "def test_right(): assert os.environ['MINIRES_TEST_DEVICE'] == 'cuda'\n"
        "def test_wrong(): assert False\n"
    )
    plain = ["-p", "no:cacheprovider", "-p", "no:minires"]
    found = suite.run_suite(["-k", "right", *plain], True, tmp_path)
    assert found["passed"]
    assert found["summary"].startswith("1 passed, 1 deselected")
    found = suite.run_suite(plain, True, tmp_path)
    assert not found["passed"]
    assert found["failed"] == ["FAILED test_it.py::test_wrong - assert False"]
    assert "1 failed, 1 passed" in capsys.readouterr().err
    assert "clone the repository" in str(suite.why_no_suite(tmp_path))
    assert suite.why_no_suite() is None


def test_pytorchs_step_runs():
    pytest.importorskip("torch", reason="needs PyTorch")
    from minires.gpu.rival import their_steps

    images, labels = np.zeros((2, 32, 32, 3), np.float32), np.array([0, 999])
    runs = dict(their_steps(images, labels, {"lr": 0.01}, "cpu"))
    assert list(runs) == ["float32", "tf32", "bf16", "fp16"]
    assert runs["float32"](1) > 0
