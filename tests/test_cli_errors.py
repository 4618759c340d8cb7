"""The `minires` command: its help, and one line for whatever cannot be done."""

from __future__ import annotations

from pathlib import Path

import pytest

from minires.backend import cuda_available
from minires.commands import COMMANDS
from minires.commands.train import SECTIONS
from minires.train import DEFAULTS, TrainConfig
from minires.version import __version__
from tests.commands import TINY, Run

__all__: list[str] = []


def test_help(run: Run):
    code, out, _ = run("--help")
    assert code == 0
    assert "MINIRES_DATA" in out
    for module in COMMANDS:
        command = module.__name__.rpartition(".")[2].replace("_", "-")
        assert command in out
        code, text, err = run(command, "--help")
        assert (code, err) == (0, "")
        assert f"\n  minires {command}" in text.partition("examples:")[2]
        assert "MINIRES_TRACEBACK" in text
    assert run("--version")[:2] == (0, f"minires {__version__}\n")


def test_train_help_lists_every_option_and_default(run: Run):
    text = " ".join(run("train", "--help")[1].split())
    for name in TrainConfig().to_dict():
        assert f"--{name.replace('_', '-')}" in text
    for name, row in DEFAULTS.items():
        assert f"{name} {row['epochs']}" in text
    assert set(SECTIONS) <= set(TrainConfig().to_dict())
    assert all(f"{title}:" in text for title in SECTIONS.values())


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "arguments are required: COMMAND"),
        (["trian"], "COMMAND: unknown value 'trian', did you mean 'train'? Choices: train, recip"),
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
        (["train", "--config", "a", "--resume", "b"], "--resume: goes on with its own options"),
        (["evaluate"], "give either a run folder or --weights FILE"),
        (["evaluate", "a", "--weights", "b"], "give either a run folder or --weights FILE"),
        (["evaluate", "a", "--dataset", "cifar"], "--dataset: unknown value 'cifar'"),
        (["predict", "a"], "arguments are required: IMAGE"),
        (["predict", "a", "b.png", "--json", "--csv"], "predict: give --csv or --json, not both"),
        (["embed", "a", "--output", "a.txt"], "--output: must end in .npy, got a.txt"),
        (["embed", "a", "--output", "no/a.npy"], "--output: there is no folder no"),
        (["embed", "a"], "arguments are required: --output"),
        (["train", "--freeze", "stem"], "--freeze: means nothing without --init"),
        (["predict", "a", "b.png", "--top", "0"], "--top-k: must be at least 1, got 0"),
        (["info", "--model", "resnet19"], "--model: model is 'resnet19'"),
        (["info", "--plan", "resnet20", "--input", "8,32"], "--input: '8,32' must be three"),
        (["info", "--input", "8,32,32"], "--input: goes with --plan only"),
        (["info", "--precision", "bf16"], "--precision: goes with --plan only"),
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
