"""The `minires` command: what it prints, where, and with which exit code."""

from __future__ import annotations

import csv
import io
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from minires.cli import main
from minires.data import shapes
from minires.train.metrics import read_lines
from minires.version import __version__
from minires.weights import load_file
from tests.commands import TINY, Run

__all__: list[str] = []

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


def test_predict_csv_of_a_folder(run: Run, finished: Path, tmp_path: Path):
    Image.fromarray(shapes("test", 1).images[0]).save(tmp_path / "a, b.png")
    damaged = tmp_path / "damaged.png"
    damaged.write_bytes(b"\x89PNG")
    code, out, err = run("predict", finished, tmp_path, "--top-k", "2", "--csv")
    assert code == 0
    assert err == f"minires: skipped {damaged}: not a picture that Pillow can read\n"
    rows = list(csv.reader(io.StringIO(out)))
    assert rows[0] == ["file", "rank", "class", "probability"]
    assert [row[:2] for row in rows[1:]] == [[str(tmp_path / "a, b.png"), rank] for rank in "12"]
    assert float(rows[1][3]) >= float(rows[2][3]) > 0
    names = tmp_path / "names.txt"
    names.write_text("".join(f"kind {k}\n" for k in range(10)))
    code, out, _ = run("predict", finished, tmp_path, "--class-names", names, "--json")
    assert json.loads(out)["images"][0]["predictions"][0]["class"].startswith("kind ")
    assert list(json.loads(out)["skipped"]) == [str(damaged)]


def test_evaluate_report(run: Run, finished: Path, tmp_path: Path):
    drawn = tmp_path / "confusion.png"
    code, out, _ = run("evaluate", finished, "--limit", "40", "--report", "--confusion", drawn)
    assert code == 0
    assert "precision  recall" in out
    assert all(name in out for name in shapes("test", 1).classes)
    assert drawn.read_bytes()[:4] == b"\x89PNG"
    code, out, _ = run("evaluate", finished, "--limit", "40", "--report", "--json")
    scores = json.loads(out.splitlines()[-1])
    assert sum(row["correct"] for row in scores["classes"]) == scores["correct"]
    assert np.sum(scores["confusion"]) == 40


def test_embed(run: Run, finished: Path, tmp_path: Path):
    data = shapes("test", 3)
    out = tmp_path / "f.npy"
    code, text, _ = run("embed", finished, "--limit", "3", "--output", out)
    assert code == 0
    assert text == f"3 images, 64 features each: {out}, rows in {tmp_path / 'f.csv'}\n"
    names = [data.classes[label] for label in data.labels]
    rows = list(csv.reader((tmp_path / "f.csv").read_text().splitlines()))
    assert rows == [["index", "class"], *([str(k), name] for k, name in enumerate(names))]
    paths = [tmp_path / f"{k}.png" for k in range(3)]
    for path, image in zip(paths, data.images, strict=True):
        Image.fromarray(image).save(path)
    pictures = tmp_path / "p.npy"
    code, text, _ = run("embed", finished, *paths, "--output", pictures, "--json")
    assert json.loads(text)["shape"] == [3, 64]
    np.testing.assert_allclose(np.load(pictures), np.load(out), rtol=1e-5, atol=1e-6)
    assert (tmp_path / "p.csv").read_text().splitlines() == ["file", *map(str, paths)]


def test_fine_tuning(run: Run, finished: Path, tmp_path: Path):
    words = ["--init", finished / "best.safetensors", "--reset-head", "--freeze", "layer1"]
    out = tmp_path / "tuned"
    code, text, _ = run("train", *words, *TINY[2:], "--lr-backbone", "0.1", "--out", out)
    assert code == 0
    assert text.startswith(f"starting from {finished / 'best.safetensors'}: ")
    assert "2 reset: fc.weight, fc.bias" in text.splitlines()[0]
    assert text.splitlines()[1].startswith("wide_resnet10_1 (")  # the file says so
    before, after = (load_file(f).arrays for f in (words[1], out / "last.safetensors"))
    same = {name for name in before if np.array_equal(before[name], after[name])}
    assert {"conv1.weight", "layer1.0.bn1.running_mean"} <= same
    assert "layer2.0.conv1.weight" not in same


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
    code, out, _ = run("info", "--plan", "resnet20", "--input", "64,32,32")
    assert out.splitlines()[1].split()[3:] == ["64x32x32x16", "*", "3x3x16x16"]
    assert out.splitlines()[-1].startswith("resnet20, batch 64, ")
    code, out, _ = run("info", "--plan", "resnet20", "--json")
    assert json.loads(out)["batch"] == 128


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
