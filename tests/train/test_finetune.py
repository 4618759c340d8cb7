"""Going on from weights that are there: what is taken, what moves and how fast."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from minires import models, nn, weights
from minires.errors import DataError
from minires.train import ConfigError, Interrupted, TrainConfig, Trainer, Watch
from minires.train.finetune import Freezing, parameter_groups, stages_of, with_network_of_init
from minires.train.metrics import read_lines

from .conftest import MakeTrainer, Toy, assert_same, quiet, results
from .test_trainer import Signals

__all__: list[str] = []


@pytest.fixture
def start(tmp_path: Path) -> Path:
    """Weights of a toy with five classes."""
    toy = Toy(5)
    toy.bn1.running_mean[...] = np.arange(8)
    weights.save(toy, tmp_path / "start.safetensors")
    return tmp_path / "start.safetensors"


def small(name: str) -> Any:
    with nn.init.skip():
        return models.build(name)


# Stages


@pytest.mark.parametrize("name", ["resnet20", "preact_resnet18", "wide_resnet10_1", "article_net"])
def test_every_weight_is_in_one_stage_or_the_head(name: str):
    model = small(name)
    stages = stages_of(model)
    inside = [id(p) for modules in stages.values() for m in modules for p in m.parameters()]
    head = [id(p) for p in model.fc.parameters()]
    assert sorted(inside + head) == sorted(id(p) for p in model.parameters())
    layers = [stage for stage in stages if stage != "stem"]
    assert layers == [f"layer{i + 1}" for i in range(len(layers))]
    assert list(stages) == layers if name == "article_net" else ["stem", *layers]


def test_what_is_frozen_in_which_epoch():
    model = small("resnet20")
    assert Freezing(model).frozen(0) == []
    freezing = Freezing(model, "layer2")
    assert freezing.frozen(0) == freezing.frozen(99) == ["stem", "layer1", "layer2"]
    freezing = Freezing(model, "layer2", every=2)
    counts = [len(freezing.frozen(epoch)) for epoch in range(8)]
    assert counts == [3, 3, 2, 2, 1, 1, 0, 0]
    freezing.train(2)
    learning = {name for name, p in model.named_parameters() if p.requires_grad}
    assert all(name.startswith(("layer2", "layer3", "fc")) for name in learning)
    assert {"layer2.0.conv1.weight", "fc.bias"} <= learning
    norms = {name: m.training for name, m in model.named_modules() if name.endswith("bn1")}
    assert not norms["bn1"]
    assert not norms["layer1.2.bn1"]
    assert norms["layer2.0.bn1"]
    maps = model.features(np.zeros((2, 8, 8, 3), np.float32))
    assert [one.requires_grad for one in maps] == [False, True, True]  # backward ends there
    freezing.train(6)
    assert all(p.requires_grad for p in model.parameters())
    assert all(m.training for m in model.modules())


def test_frozen_statistics():
    model = small("resnet20")
    Freezing(model, statistics=True).train(0)
    assert all(m.training is not isinstance(m, nn.BatchNorm2d) for m in model.modules())
    assert all(p.requires_grad for p in model.parameters())


@pytest.mark.parametrize("name", ["resnet20", "article_net"])
def test_stages_that_there_are_not(name: str):
    stages = r"layer1, layer2, layer3, layer4, layer5" if name == "article_net" else r"stem, layer1"
    with pytest.raises(ConfigError, match=rf"--freeze: unknown value 'fc'\. Choices: {stages}"):
        Freezing(small(name), "fc")
    with pytest.raises(ConfigError, match=r"'layer9', did you mean 'layer"):
        Freezing(small(name), "layer9")


# Rates


def test_the_backbone_learns_more_slowly():
    model = small("resnet20")
    groups = parameter_groups(model, 0.1, 5e-4, lr_backbone=0.2)
    rate = {id(p): group["lr"] for group in groups for p in group["params"]}
    decay = {id(p): group["weight_decay"] for group in groups for p in group["params"]}
    for name, p in model.named_parameters():
        assert rate[id(p)] == pytest.approx(0.1 if name.startswith("fc") else 0.02)
        assert decay[id(p)] == (5e-4 if p.ndim > 1 else 0)
    assert [g["lr"] for g in groups] == pytest.approx([0.1, 0.1, 0.02, 0.02])
    assert len(parameter_groups(model, 0.1, 5e-4)) == 2  # as in runs from before there was a choice


def test_biases_of_batch_norms_at_a_rate_of_their_own():
    model = small("resnet20")
    groups = parameter_groups(model, 0.1, 5e-4, lr_bias=64.0)
    rate = {id(p): group["lr"] for group in groups for p in group["params"]}
    for name, p in model.named_parameters():
        is_bias = name.endswith(("bn1.bias", "bn2.bias", "downsample.1.bias"))
        assert rate[id(p)] == pytest.approx(6.4 if is_bias else 0.1), name
    assert groups[0]["lr"] == 0.1  # the one that metrics.jsonl shows


def test_decay_of_everything():
    (group,) = parameter_groups(small("resnet20"), 0.1, 5e-4, decay_all=True)
    assert group["weight_decay"] == 5e-4


def test_what_a_network_fixes_stays_fixed():
    model = models.whitened_resnet()
    Freezing(model).train(0)
    fixed = {name for name, p in model.named_parameters() if not p.requires_grad}
    norms = {f"layer{i}.bn{k}.weight" for i in (1, 2, 3) for k in (1, 2)}
    assert fixed == {"conv1.weight", *norms}


@pytest.mark.parametrize("schedule", ["onecycle", "cosine", "step", "constant"])
def test_schedules_keep_the_ratio(trainer: MakeTrainer, schedule: str):
    made = trainer(lr_backbone=0.25, schedule=schedule)
    groups = made.step.optimizer.param_groups
    for _ in range(4):
        head, backbone = groups[0]["lr"], groups[-1]["lr"]
        assert backbone == pytest.approx(0.25 * head)
        made.step.schedule.step()


# Whole runs


def test_it_starts_from_the_weights(trainer: MakeTrainer, start: Path, capsys):
    made = trainer(init=str(start), reset_head=True, seed=3, watch=Watch())
    said = capsys.readouterr().out
    assert f"starting from {start}: " in said
    assert "fc.weight" in said
    given = weights.load_file(start).arrays
    model = made.model.to("cpu")
    np.testing.assert_array_equal(model.bn1.running_mean, given["bn1.running_mean"])
    own = weights.to_file("conv1.weight", model.conv1.weight.numpy())
    np.testing.assert_array_equal(own, given["conv1.weight"])
    fresh = trainer(out="fresh", seed=3).model  # the seed decides about the head
    np.testing.assert_array_equal(model.fc.weight.numpy(), fresh.fc.weight.numpy())


def test_another_number_of_classes_needs_a_new_head(trainer: MakeTrainer, start: Path, tmp_path):
    with pytest.raises(DataError, match=r"fc\.weight is \(5, 8\) in the file, \(8, 8\) in the"):
        trainer(init=str(start))
    assert not (tmp_path / "run").exists()


def test_a_file_that_is_not_there(trainer: MakeTrainer, tmp_path: Path):
    with pytest.raises(DataError, match=r"no\.pth: cannot be read: No such file"):
        trainer(init=str(tmp_path / "no.pth"))
    assert not (tmp_path / "run").exists()


def test_the_network_comes_from_the_file(tmp_path: Path, trainer: MakeTrainer, start: Path):
    trainer(model="wide_resnet16_2").run()
    file = str(tmp_path / "run" / "best.safetensors")
    assert with_network_of_init(TrainConfig(init=file)).model == "wide_resnet16_2"
    assert with_network_of_init(TrainConfig(init=file, model="resnet20")).model == "resnet20"
    assert with_network_of_init(TrainConfig(init=str(start))).model is None  # a toy


def test_the_network_that_the_tensors_look_like(tmp_path: Path):
    with nn.init.skip():
        weights.save(models.resnet18(7), tmp_path / "no card.safetensors")
    config = with_network_of_init(TrainConfig(init=str(tmp_path / "no card.safetensors")))
    assert (config.model, config.stem) == ("resnet18", "imagenet")


def test_what_is_frozen_does_not_move(trainer: MakeTrainer, start: Path):
    made = trainer(init=str(start), reset_head=True, freeze="stem", weight_decay=0.1)
    before = made.model.state_dict()
    made.run()
    after = made.model.state_dict()
    moved = {name for name in before if not np.array_equal(before[name], after[name])}
    assert moved == {"fc.weight", "fc.bias"}


def test_frozen_statistics_do_not_move_but_weights_do(trainer: MakeTrainer, start: Path):
    made = trainer(init=str(start), reset_head=True, freeze_bn=True)
    before = made.model.state_dict()
    made.run()
    after = made.model.state_dict()
    moved = {name for name in before if not np.array_equal(before[name], after[name])}
    assert moved == {"conv1.weight", "bn1.weight", "bn1.bias", "fc.weight", "fc.bias"}


def test_a_stage_is_freed_in_its_epoch(trainer: MakeTrainer, start: Path):
    made = trainer(init=str(start), reset_head=True, freeze="stem", unfreeze_every=2)
    first = made.model.conv1.weight.numpy().copy()
    made.run(stop_after_epoch=2)
    np.testing.assert_array_equal(made.model.conv1.weight.numpy(), first)
    made.run()
    assert not np.array_equal(made.model.conv1.weight.numpy(), first)


TUNING = {"reset_head": True, "freeze": "stem", "unfreeze_every": 1, "lr_backbone": 0.5}


@pytest.mark.parametrize("stops", [[1], [3, 5], [7, 2], [13, 4]])
def test_an_interrupted_run_ends_as_an_undisturbed_one(
    trainer: MakeTrainer, start: Path, tmp_path: Path, stops: list[int]
):
    options = {"init": str(start), "epochs": 4, **TUNING, "optimizer": "adamw", "lr": 0.01}
    trainer(out="whole", **options).run()
    made = trainer(out="parts", watch=Signals(stops[0]), **options)
    start.unlink()  # the checkpoint has all that is needed
    for after in [*stops[1:], 0]:
        with pytest.raises(Interrupted):
            made.run()
        made = Trainer.resume(tmp_path / "parts", sets=made.sets, watch=Signals(after))
    made.run()
    assert_same(results(tmp_path / "whole"), results(tmp_path / "parts"))


def test_killed_before_the_first_checkpoint(trainer: MakeTrainer, start: Path, tmp_path: Path):
    trainer(out="whole", init=str(start), **TUNING).run()
    made = trainer(out="parts", init=str(start), **TUNING)
    Trainer.resume(tmp_path / "parts", sets=made.sets, watch=quiet()).run()
    assert_same(results(tmp_path / "whole"), results(tmp_path / "parts"))


def test_config_json_runs_it_again(trainer: MakeTrainer, start: Path, tmp_path: Path):
    trainer(init=str(start), freeze_bn=True, early_stopping=2, **TUNING).run()
    record = json.loads((tmp_path / "run" / "config.json").read_text())["config"]
    assert {name: record[name] for name in TUNING} == TUNING
    again = TrainConfig.load(tmp_path / "run" / "config.json").to_dict()
    trainer(out="again", **again).run()
    first, second = (read_lines(tmp_path / out / "metrics.jsonl") for out in ("run", "again"))
    assert first == second


@pytest.mark.parametrize("option", ["reset_head", "freeze", "freeze_bn"])
def test_options_that_need_weights(option: str):
    value = "stem" if option == "freeze" else True
    message = rf"--{option.replace('_', '-')}: means nothing without --init"
    with pytest.raises(ConfigError, match=message):
        TrainConfig(**{option: value}).resolved()
    with pytest.raises(ConfigError, match=r"--unfreeze-every: means nothing without --freeze"):
        TrainConfig(init="a", unfreeze_every=2).resolved()
    with pytest.raises(ConfigError, match=r"--lr-backbone: must be above 0, got 0"):
        TrainConfig(lr_backbone=0.0).resolved()
