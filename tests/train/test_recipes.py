"""Recipes: every one can be run, and what is shown of them comes from the file of measured runs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from minires.train import DEFAULTS, ConfigError, TrainConfig, load_recipe, recipe_names
from minires.train import recipes as module

from ..commands import TINY, Run

__all__: list[str] = []


@pytest.mark.parametrize("name", recipe_names())
def test_a_recipe_leaves_nothing_to_the_defaults_of_its_data_set(name: str):
    recipe = load_recipe(name)
    config = recipe.config
    assert [option for option in DEFAULTS[config.dataset] if getattr(config, option) is None] == []
    assert config.crop is not None
    assert config.resolved() == config
    assert config.seed == 0
    assert config.data is None


def test_an_unknown_recipe():
    with pytest.raises(ConfigError, match=r"--recipe: .*'resnet20-fest', did you mean 'resnet20-f"):
        load_recipe("resnet20-fest")


def test_mean_and_deviation_come_from_the_measured_runs(tmp_path: Path, monkeypatch, run: Run):
    file = tmp_path / "measured.jsonl"
    lines = [("he2015-resnet20", 0, 0.91, None, 1200), ("he2015-resnet20", 1, 0.93, None, 2400)]
    lines += [("resnet20-fast", 0, 0.9, 0.95, 60)]
    keys = ("recipe", "seed", "test_accuracy", "test_accuracy_views", "cpu_seconds")
    rest = {"cpu": "a CPU", "isa": "avx2", "cores": 2}
    file.write_text("".join(json.dumps(dict(zip(keys, x)) | rest) + "\n" for x in lines))
    monkeypatch.setattr(module, "MEASURED", file)
    found = load_recipe("he2015-resnet20").summary()
    assert found["test_accuracy"] == pytest.approx({"mean": 0.92, "deviation": 0.02 / 2**0.5})
    assert found["test_accuracy_views"] is None
    assert (found["minutes"], found["seeds"]) == (15.0, [0, 1])
    assert found["machines"] == ["a CPU (avx2), 2 cores"]
    code, out, _ = run("recipes")
    assert code == 0
    rows = {line.split()[0]: " ".join(line.split()) for line in out.splitlines()}
    measured = "resnet20 182 92.00 ± 1.41 (2) - 15.0 a CPU (avx2), 2 cores"
    assert rows["he2015-resnet20"] == f"he2015-resnet20 {measured}"
    epochs = load_recipe("resnet18-fast").config.epochs
    assert rows["resnet18-fast"] == f"resnet18-fast resnet18 {epochs} not measured not measured"
    found = json.loads(run("recipes", "--json")[1])["recipes"]
    assert [row["recipe"] for row in found] == recipe_names()


def test_a_run_by_recipe_can_be_run_again_without_it(tmp_path: Path, run: Run, monkeypatch):
    folder = tmp_path / "recipes"
    folder.mkdir()
    text = 'about = "x"\n[options]\nmomentum = 0.5\nlabel_smoothing = 0.2\nepochs = 7\n'
    (folder / "tiny.toml").write_text(text)
    monkeypatch.setattr(module, "FOLDER", folder)
    given = ["--out", tmp_path / "a", "--quiet"]
    assert run("train", "--recipe", "tiny", *TINY, *given)[0] == 0
    config = TrainConfig.load(tmp_path / "a" / "config.json")
    assert (config.momentum, config.label_smoothing, config.epochs) == (0.5, 0.2, 2)
    (folder / "tiny.toml").unlink()
    again = ["--config", tmp_path / "a" / "config.json", "--out", tmp_path / "b", "--quiet"]
    assert run("train", *again)[0] == 0
    metrics = [(tmp_path / x / "metrics.jsonl").read_bytes() for x in "ab"]
    assert metrics[0] == metrics[1]


def test_a_recipe_and_a_config_exclude_each_other(fails):
    assert "--recipe, --config" in fails(
        2, "train", "--recipe", "resnet20-fast", "--config", "nowhere.json"
    )
