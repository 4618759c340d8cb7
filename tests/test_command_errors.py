"""Bad files and folders given to the command: one line on stderr, no traceback, nothing left
behind.

Options are in test_cli.py, the engine's own errors in test_errors.py.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from minires import cli, models, weights
from minires.data.cifar import LAYOUTS
from tests.data.synthetic import small, write

__all__: list[str] = []

EVALUATE = ["evaluate", "--normalize", "imagenet", "--quiet"]

Fails = Callable[..., str]


@pytest.fixture
def fails(capsys: pytest.CaptureFixture[str]) -> Fails:
    """Run a command line that must fail with `code`; the one line that it printed on stderr."""

    def call(code: int, *words: Any) -> str:
        assert cli.main([str(word) for word in words]) == code
        out, err = capsys.readouterr()
        assert out == ""
        assert err.count("\n") == 1, err
        assert err.startswith("minires: error: ")
        return err.removeprefix("minires: error: ").rstrip("\n")

    return call


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """The weights of a resnet20."""
    weights.save(models.resnet20(), tmp_path / "r20.safetensors")
    return tmp_path / "r20.safetensors"


@pytest.fixture(params=[0, 1], ids=["binary", "python"])
def folder(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A small CIFAR-10 in one of the official layouts."""
    layouts = tuple(small(layout) for layout in LAYOUTS["cifar10"])
    monkeypatch.setitem(LAYOUTS, "cifar10", layouts)
    return write(tmp_path / layouts[request.param].folder, "cifar10", layouts[request.param])


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda raw: raw[:-1], "--download"),
        (lambda raw: raw[:3000], "--download"),
        (lambda raw: b"", "--download"),
        (lambda raw: b"\xff" * len(raw), ""),
    ],
    ids=["short by a byte", "truncated", "empty", "overwritten"],
)
def test_damaged_data(fails: Fails, file: Path, folder: Path, damage: Any, message: str) -> None:
    batch = next(path for path in sorted(folder.iterdir()) if path.name.startswith("test_batch"))
    batch.write_bytes(damage(batch.read_bytes()))
    words = [*EVALUATE, "--weights", file, "--model", "resnet20", "--dataset", "cifar10"]
    text = fails(1, *words, "--data", folder)
    assert text.startswith(str(batch))
    assert message in text


def test_missing_data(fails: Fails, file: Path, folder: Path) -> None:
    next(folder.glob("test_batch*")).unlink()
    words = [*EVALUATE, "--weights", file, "--model", "resnet20", "--dataset", "cifar10"]
    text = fails(1, *words, "--data", folder)
    assert "test_batch" in text
    assert f"is missing; get it with --download --data {folder.parent}" in text
    assert "holds no cifar100, expected a folder" in fails(
        1, *words[:-1], "cifar100", "--data", folder
    )


def test_weights_of_another_model(fails: Fails, file: Path) -> None:
    words = [*EVALUATE, "--weights", file, "--dataset", "shapes", "--limit", "2", "--model"]
    for model in ("resnet56", "resnet18", "plain34"):
        text = fails(1, *words, model)
        assert text.startswith(f"{file}: weights of another model (they look like resnet20 for 10")
        assert "missing" in text


def test_weights_with_nan(fails: Fails, file: Path) -> None:
    arrays = dict(weights.load_file(file).arrays)
    arrays["fc.weight"] = np.full_like(arrays["fc.weight"], np.nan)
    weights.save_safetensors(file, arrays)
    words = ["--weights", file, "--dataset", "shapes", "--limit", "2", "--model", "resnet20"]
    assert "the loss is nan" in fails(1, *EVALUATE, *words)


def test_pictures(fails: Fails, file: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"\x89PNG\r\n\x1a\n and then nothing")
    words = ["--model", "resnet20", "--normalize", "imagenet"]
    assert fails(1, "predict", file, broken, *words).startswith(f"{broken}: not a picture")
    gone = tmp_path / "gone.png"
    assert fails(1, "predict", file, gone, *words).startswith(f"{gone}: cannot read this picture")


def test_files_in_the_way_of_the_output_folder(fails: Fails, tmp_path: Path) -> None:
    train = ["train", "--limit", "20", "--epochs", "1", "--quiet", "--out"]
    occupied = tmp_path / "a file"
    occupied.write_text("here already")
    for out in (occupied, occupied / "below"):
        assert fails(1, *train, out).startswith(f"cannot write to the run folder {out}: ")
    assert occupied.read_text() == "here already"


def test_a_read_only_output_folder(fails: Fails, tmp_path: Path) -> None:
    locked = tmp_path / "locked"
    locked.mkdir(mode=0o555)
    if os.access(locked, os.W_OK):
        pytest.skip("this user may write everywhere; test_cli.py tries /proc")
    text = fails(1, "train", "--limit", "20", "--epochs", "1", "--out", locked / "run")
    assert text == f"cannot write to the run folder {locked / 'run'}: Permission denied"


def test_in_a_process_of_its_own(child_env: dict[str, Any], tmp_path: Path) -> None:
    words = f"evaluate --weights {tmp_path / 'none.th'} --model resnet20 --dataset shapes".split()
    command = [sys.executable, "-m", "minires", *words]
    done = subprocess.run(command, env=child_env, capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stdout == ""
    last = done.stderr.replace("\r", "\n").rstrip("\n").split("\n")[-1].strip()
    gone = f"{tmp_path / 'none.th'}: cannot be read: No such file or directory"
    assert last == f"minires: error: {gone}"
    assert "Traceback" not in done.stderr
