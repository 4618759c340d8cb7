"""The environment of every test: seeded, plots go to files, uninitialised memory is NaN."""

from __future__ import annotations

import importlib
import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

os.environ["MPLBACKEND"] = "Agg"  # before anything imports matplotlib
if "PYTEST_XDIST_WORKER" in os.environ:  # threads that wait leave the cores to the other workers
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import numba
import numpy as np
import pytest
from hypothesis import settings
from threadpoolctl import threadpool_limits

import minires.random
from minires.backend import cuda_available
from minires.kernels.memory import pool, set_threads, threads
from tests.commands import fails, finished, run
from tests.gpu import device, emulator, everywhere
from tests.gpu.everywhere import EVERYWHERE
from tests.real_data import real_cifar10, real_cifar10_all

__all__ = ["fails", "finished", "real_cifar10", "real_cifar10_all", "run"]

ROOT = Path(__file__).resolve().parents[1]

settings.register_profile("minires", derandomize=True, deadline=None, database=None)
settings.load_profile("minires")
MOST = numba.config.NUMBA_NUM_THREADS  # type: ignore[attr-defined]
WORKERS = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))  # of `pytest -n`
SHARE = max(1, MOST // WORKERS)  # threads of a worker, where a test doesn't ask for others
pool.poison = True  # an element that a kernel forgets to write is NaN, not what lay there by luck


def pytest_configure(config: pytest.Config) -> None:
    """With `-m gpu`, or the whole suite on the device, CuPy runs on the stand-in device where there
    is no GPU. Workers side by side divide the cores.
    """
    if WORKERS > 1:
        set_threads(SHARE)
        threadpool_limits(SHARE)  # BLAS; for as long as this process runs
    wanted = EVERYWHERE or (asks_for_gpu(config) and emulator.FLAVOUR == "plain")
    if wanted and not device.real_gpu() and (EVERYWHERE or not device.missing()):
        device.install()
    if EVERYWHERE:
        everywhere.compute_on_device(importlib.import_module("cupy"))


def asks_for_gpu(config: pytest.Config) -> bool:
    """Whether GPU tests were chosen by `-m`."""
    return bool(re.search(r"(?<!not )\bgpu\b", config.option.markexpr))


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Skip tests marked `gpu` unless asked for, and `compiled` where Numba is switched off.

    Look for the GPU only when such a test was chosen.
    """
    if EVERYWHERE:
        everywhere.skip_what_is_elsewhere(items)
    chosen = [item for item in items if item.get_closest_marker("gpu")]
    if chosen and not asks_for_gpu(config) and not cuda_available():
        reason = "no GPU here: pip install -e '.[test,gpu-rig]' && pytest -m gpu"
        for item in chosen:
            item.add_marker(pytest.mark.skip(reason=reason))
    if numba.config.DISABLE_JIT:  # type: ignore[attr-defined]
        for item in items:
            if "compiled" in item.keywords:
                item.add_marker(pytest.mark.skip(reason="takes minutes without the compiler"))


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """On the device, list what was left out, and why."""
    if EVERYWHERE:
        terminalreporter.section("left out on the device")
        for line in everywhere.left_out(terminalreporter.stats.get("skipped", [])):
            terminalreporter.line(line)


@pytest.fixture(autouse=True)
def seeded() -> None:
    """Each test starts from the same random state, whatever ran before it."""
    minires.random.manual_seed(0)
    np.random.seed(0)  # noqa: NPY002 - for code of others that draws from it


@pytest.fixture
def rng() -> np.random.Generator:
    """A seeded generator for test inputs."""
    return np.random.default_rng(0)


@pytest.fixture(scope="session")
def root() -> Path:
    """The repository."""
    return ROOT


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real data beside the repository; the test is skipped where there is none."""
    folder = ROOT.parent / "shared"
    if not folder.is_dir():
        pytest.skip("needs the real data in ../shared")
    return folder


@pytest.fixture
def child_env() -> dict[str, Any]:
    """The environment for a Python subprocess that imports minires as this process does."""
    paths = [p for p in sys.path if p] + [str(ROOT)]
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(dict.fromkeys(paths))}
    if WORKERS > 1:
        env |= {"NUMBA_NUM_THREADS": str(SHARE), "OPENBLAS_NUM_THREADS": str(SHARE)}
    return env


@pytest.fixture
def one_thread() -> Iterator[None]:
    """Small layers on a busy machine: starting threads would take longer than the work."""
    before = threads()
    set_threads(1)
    yield
    set_threads(before)


@pytest.fixture
def thread_counts() -> Iterator[list[int]]:
    """The numbers of threads to try with `set_threads`; afterwards it is what it was."""
    before = threads()
    yield [count for count in sorted({1, 2, MOST}) if count <= MOST]
    set_threads(before)
