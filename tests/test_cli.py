"""The `minires` command: what it prints, where, and with which exit code."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from minires.backend import cuda_available
from minires.cli import main
from minires.data import shapes
from minires.train import RECIPES, TrainConfig
from minires.train.metrics import read_lines
from minires.version import __version__

__all__: list[str] = []

TINY = ["--model", "wide_resnet10_1", "--limit", "40", "--batch-size", "8", "--epochs", "2"]

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    """Run a command line in this process: (exit code, stdout, stderr)."""

    def call(*words: str | Path) -> tuple[int, str, str]:
        code = main([str(word) for word in words])
        return (code, *capsys.readouterr())

    return call


@pytest.fixture
def fails(run: Run) -> Callable[..., str]:
    """Run a command line that must fail with this code and one line, which is on stderr."""

    def call(code: int, *words: str | Path) -> str:
        got, out, err = run(*words)
        assert (got, out) == (code, "")
        assert err.endswith("\n")
        assert err.count("\n") == 1, err
        assert "Traceback" not in err
        return err

    return call


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run folder."""
    folder = tmp_path_factory.mktemp("runs") / "finished"
    assert main(["train", *TINY, "--out", str(folder), "--quiet"]) == 0
    return folder


# Training


def test_train_prints_a_line_an_epoch(run: Run, tmp_path: Path):
    code, out, err = run("train", *TINY, "--out", tmp_path / "run")
    assert code == 0
    lines = out.splitlines()
    assert lines[0].startswith("wide_resnet10_1 (")
    assert "36 training, 4 validation, 40 test images" in lines[0]
    assert lines[1].startswith("epoch 1/2  train ")
    assert lines[2].startswith("epoch 2/2  train ")
    assert " img/s" in lines[2]
    assert lines[3].startswith("test accuracy 0.")
    assert str(tmp_path / "run") in lines[3]
    assert "epoch 1/2" in err  # the bar


def test_train_json_is_the_last_line_of_stdout(run: Run, tmp_path: Path):
    code, out, err = run("train", *TINY, "--out", tmp_path / "run", "--json")
    assert code == 0
    summary = json.loads(out.splitlines()[-1])
    line = read_lines(tmp_path / "run" / "metrics.jsonl")[-1]
    assert summary["finished"] is True
    assert {key: summary[key] for key in line} == line
    assert "epoch 2/2  train " in err


def test_what_a_run_leaves(finished: Path):
    names = {path.name for path in finished.iterdir()}
    weights = {"last.safetensors", "best.safetensors", "checkpoint.safetensors"}
    assert weights | {"config.json", "metrics.jsonl", "timing.jsonl", "curves.png"} <= names
    assert (finished / "curves.png").read_bytes()[:4] == b"\x89PNG"
    record = json.loads((finished / "config.json").read_text())
    assert record["config"]["model"] == "wide_resnet10_1"
    assert record["versions"]["minires"] == __version__
    assert record["device"] in ("cpu", "cuda")


def test_the_same_run_again_from_its_config(run: Run, finished: Path, tmp_path: Path):
    config = finished / "config.json"
    code, out, _ = run("train", "--config", config, "--out", tmp_path / "again", "--quiet")
    assert code == 0
    assert out.startswith("test accuracy")
    first, second = (folder / "metrics.jsonl" for folder in (finished, tmp_path / "again"))
    assert first.read_text() == second.read_text()
    weights = "last.safetensors"
    assert (finished / weights).read_bytes() == (tmp_path / "again" / weights).read_bytes()


def test_stop_and_resume(run: Run, finished: Path, tmp_path: Path):
    out = tmp_path / "run"
    code, text, _ = run("train", *TINY, "--out", out, "--stop-after-epoch", "1", "--quiet")
    assert (code, text) == (0, f"stopped; go on with minires train --resume {out}\n")
    code, text, _ = run("train", "--resume", out, "--json", "--quiet")
    assert code == 0
    assert json.loads(text)["finished"] is True
    for name in ("metrics.jsonl", "last.safetensors", "best.safetensors"):
        assert (out / name).read_bytes() == (finished / name).read_bytes()


# Using what was trained


def test_evaluate(run: Run, finished: Path):
    code, out, _ = run("evaluate", finished, "--limit", "40", "--json")
    assert code == 0
    scores = json.loads(out.splitlines()[-1])
    assert list(scores) == ["accuracy", "correct", "total", "loss"]
    line = read_lines(finished / "metrics.jsonl")[-1]
    assert (scores["accuracy"], scores["loss"]) == (line["test_accuracy"], line["test_loss"])
    file = finished / "last.safetensors"
    words = ("--weights", file, "--model", "wide_resnet10_1", "--limit", "40", "--quiet")
    code, out, err = run("evaluate", *words)
    assert code == 0
    assert err == ""
    assert out == f"accuracy {scores['accuracy']:.4f} ({scores['correct']} of 40), " + (
        f"loss {scores['loss']:.4f}\n"
    )


def test_predict(run: Run, finished: Path, tmp_path: Path):
    images = shapes("test", 2).images
    paths = [tmp_path / "a.png", tmp_path / "b.png"]
    for path, image in zip(paths, images, strict=True):
        Image.fromarray(image).resize((50, 40)).save(path)
    code, out, _ = run("predict", finished, *paths, "--top", "3")
    assert code == 0
    assert [line.split(": ")[0] for line in out.splitlines()] == [str(path) for path in paths]
    code, out, _ = run("predict", finished / "best.safetensors", *paths, "--json")
    found = json.loads(out)["images"]
    assert [entry["file"] for entry in found] == [str(path) for path in paths]
    assert found[0]["predictions"][0]["class"] in shapes("test", 1).classes
    assert len(found[0]["predictions"]) == 5


def test_gradcheck(run: Run):
    code, out, _ = run("gradcheck", "relu", "linear")
    assert code == 0
    assert "relu" in out
    assert "linear" in out
    assert "passed" in out.splitlines()[-1]
    code, out, _ = run("gradcheck", "relu", "--json")
    found = json.loads(out)
    assert found["passed"] is True
    assert found["ops"][0]["max_error"] < 1e-6


def test_info(run: Run):
    code, out, _ = run("info")
    assert code == 0
    assert {line.split()[0] for line in out.splitlines()} >= {"minires", "numba", "blas", "threads"}
    code, out, _ = run("info", "--json")
    assert json.loads(out)["minires"] == __version__
    code, out, _ = run("info", "--model", "resnet20")
    assert out.splitlines()[-1] == "resnet20, 10 classes: 269,722 parameters"
    assert out.splitlines()[0].split() == ["conv1", "Conv2d", "432", "weight", "3x3x3x16"]
    code, out, _ = run("info", "--models")
    assert "resnet18" in out


# Help and errors


def test_help(run: Run):
    code, out, _ = run("--help")
    assert code == 0
    assert "MINIRES_DATA" in out
    for command in ("train", "evaluate", "predict", "gradcheck", "info"):
        assert command in out
        code, text, err = run(command, "--help")
        assert (code, err) == (0, "")
        assert f"examples:\n  minires {command}" in text
        assert "MINIRES_TRACEBACK" in text
    assert run("--version")[:2] == (0, f"minires {__version__}\n")


def test_train_help_lists_every_option_and_default(run: Run):
    text = " ".join(run("train", "--help")[1].split())
    for name in TrainConfig().to_dict():
        assert f"--{name.replace('_', '-')}" in text
    for name, row in RECIPES.items():
        assert f"{name} {row['epochs']}" in text


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "arguments are required: COMMAND"),
        (["trian"], "COMMAND: unknown value 'trian', did you mean 'train'? Choices: train, evalu"),
        (["train", "--modle", "x"], "unrecognized argument --modle, did you mean --model?"),
        (["train", "--epochs", "three"], "argument --epochs: invalid int value: 'three'"),
        (["train", "--epochs", "0"], "--epochs: must be at least 1, got 0"),
        (["train", "--lr", "nan"], "--lr: must be finite, got nan"),
        (
            ["train", "--dataset", "cifar"],
            "--dataset: unknown value 'cifar', did you mean 'cifar10'",
        ),
        (["train", "--model", "resnet"], "--model: unknown value 'resnet', did you mean 'resnet"),
        (["train", "--stem", "imagenet"], "--model: resnet20: stem is 'imagenet'"),
        (["train", "--schedule", "cosin"], "--schedule: unknown value 'cosin', did you mean 'cos"),
        (["train", "--normalize", "z"], "--normalize: unknown value 'z'. Choices: dataset, imag"),
        (["train", "--threads", "1000"], "--threads: "),
        (["train", "--config", "a", "--resume", "b"], "--resume: goes on in its own folder"),
        (["evaluate"], "give either a run folder or --weights FILE"),
        (["evaluate", "a", "--weights", "b"], "give either a run folder or --weights FILE"),
        (["evaluate", "a", "--dataset", "cifar"], "--dataset: unknown value 'cifar'"),
        (["predict", "a"], "arguments are required: IMAGE"),
        (["predict", "a", "b.png", "--top", "0"], "--top: must be at least 1, got 0"),
        (["info", "--model", "resnet19"], "--model: model is 'resnet19'"),
    ],
)
def test_usage_errors(fails, words: list[str], message: str, tmp_path: Path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert message in fails(2, *words)
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(cuda_available(), reason="there is a GPU here")
def test_cuda_without_a_gpu(fails, tmp_path: Path):
    err = fails(2, "train", "--device", "cuda", "--out", tmp_path / "run")
    assert "--device cuda: " in err
    assert "--device cpu" in err
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("dataset", ["cifar10", "cifar100"])
def test_missing_data(fails, tmp_path: Path, dataset: str):
    words = ("train", "--dataset", dataset, "--data", tmp_path, "--out", tmp_path / "run")
    assert str(tmp_path) in fails(1, *words)
    assert not (tmp_path / "run").exists()


def test_data_folder_from_the_environment(fails, tmp_path: Path, monkeypatch):
    monkeypatch.setenv("MINIRES_DATA", str(tmp_path / "nowhere"))
    assert "nowhere" in fails(1, "train", "--dataset", "cifar10", "--out", tmp_path / "run")


def test_a_full_folder(fails, finished: Path):
    before = sorted(finished.iterdir())
    err = fails(2, "train", *TINY, "--out", finished)
    assert f"the folder {finished} is not empty" in err
    assert "--resume" in err
    assert sorted(finished.iterdir()) == before


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="needs /proc, where nobody may write")
def test_a_folder_that_cannot_be_written(fails):
    err = fails(1, "train", *TINY, "--out", "/proc/self/run")
    assert "cannot write to the run folder /proc/self/run" in err


def test_resuming_what_is_not_there(fails, tmp_path: Path):
    assert "not a run folder" in fails(1, "train", "--resume", tmp_path / "no")


def test_resuming_with_other_options(fails, finished: Path):
    err = fails(2, "train", "--resume", finished, "--lr", "0.7")
    assert "--resume: --lr is 0.003 in" in err


def test_nan_names_step_and_operation(fails, tmp_path: Path):
    out = tmp_path / "run"
    words = (
        "--optimizer",
        "sgd",
        "--lr",
        "1e30",
        "--schedule",
        "constant",
        "--warmup",
        "0",
        "--quiet",
        "--out",
        out,
    )
    err = fails(1, "train", *TINY, *words)
    assert "error: step " in err
    assert "gave NaN or Inf" in err
    assert str(out / "last.safetensors") in err


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda raw: raw[: len(raw) // 2], "truncated"),
        (lambda raw: b"", "empty"),
        (lambda raw: b"not weights at all", "neither safetensors nor a PyTorch file"),
    ],
)
def test_damaged_weights(fails, finished: Path, tmp_path: Path, damage, message: str):
    file = tmp_path / "weights.safetensors"
    file.write_bytes(damage((finished / "last.safetensors").read_bytes()))
    err = fails(1, "evaluate", "--weights", file, "--model", "resnet20", "--dataset", "shapes")
    assert str(file) in err
    assert message in err


def test_weights_of_another_model(fails, finished: Path):
    file = finished / "last.safetensors"
    assert "another model" in fails(1, "evaluate", "--weights", file, "--model", "resnet20")


def test_a_traceback_when_asked_for(run: Run, tmp_path: Path, monkeypatch):
    monkeypatch.setenv("MINIRES_TRACEBACK", "1")
    code, _, err = run("train", "--resume", tmp_path)
    assert code == 1
    assert "Traceback (most recent call last)" in err
    assert "not a run folder" in err.splitlines()[-1]


# Signals, in processes of their own


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupt_and_resume(child_env: dict, finished: Path, tmp_path: Path, number: int):
    out = tmp_path / "run"
    words = ["train", *TINY, "--epochs", "400", "--schedule", "constant", "--warmup", "0"]
    command = [sys.executable, "-m", "minires", *words, "--out", str(out), "--json"]
    child = subprocess.Popen(
        command, env=child_env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    metrics = out / "metrics.jsonl"
    deadline = time.monotonic() + 200
    while not metrics.exists() and child.poll() is None and time.monotonic() < deadline:
        time.sleep(0.05)
    child.send_signal(number)
    text, err = child.communicate(timeout=100)
    assert child.returncode == 130, err
    last = err.splitlines()[-1]
    assert signal.Signals(number).name in last
    assert f"go on with minires train --resume {out}" in last
    assert "Traceback" not in err
    summary = json.loads(text.splitlines()[-1])
    assert summary["finished"] is False
    assert summary["epoch"] >= 1
    epochs = len(read_lines(metrics))
    code = main(["train", "--resume", str(out), "--stop-after-epoch", str(epochs + 1), "--quiet"])
    assert code == 0
    assert [line["epoch"] for line in read_lines(metrics)] == list(range(1, epochs + 2))


def test_a_reader_that_goes_away(child_env: dict):
    pipe = f"{sys.executable} -m minires info --model resnet110 | head -1"
    done = subprocess.run(pipe, shell=True, env=child_env, capture_output=True, text=True)
    assert done.stdout.startswith("conv1")
    assert done.stderr == ""


def test_python_m_minires(child_env: dict):
    command = [sys.executable, "-m", "minires", "train", "--epochs", "0"]
    done = subprocess.run(command, env=child_env, capture_output=True, text=True, cwd=os.sep)
    assert done.returncode == 2
    assert done.stderr == "minires: error: --epochs: must be at least 1, got 0\n"
