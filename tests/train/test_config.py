"""Options: defaults by data set, and errors that name the value and what was expected."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from minires.data import NORMALISATIONS, dataset_names
from minires.train import DEFAULTS, ConfigError, TrainConfig
from minires.train import config as settings

__all__: list[str] = []


@pytest.mark.parametrize("dataset", settings.DATASETS)
def test_every_data_set_has_defaults(dataset: str):
    config = TrainConfig(dataset=dataset).resolved()
    assert {name: getattr(config, name) for name in DEFAULTS[dataset]} == DEFAULTS[dataset]


def test_what_is_given_wins():
    config = TrainConfig(epochs=7, flip=False, weight_decay=0.0).resolved()
    assert (config.epochs, config.flip, config.weight_decay) == (7, False, 0.0)


def test_another_optimizer_gets_its_usual_rate():
    assert TrainConfig(dataset="cifar10", optimizer="adam").resolved().lr == 1e-3
    assert TrainConfig(dataset="shapes", optimizer="sgd").resolved().lr == 0.1
    assert TrainConfig(dataset="cifar10", optimizer="adam", lr=0.5).resolved().lr == 0.5
    assert TrainConfig(dataset="cifar10", optimizer="muon").resolved().lr == 0.05
    assert TrainConfig(optimizer="adamw").resolved() == TrainConfig().resolved()


def test_the_whitened_net_is_whitened_unless_it_has_weights():
    models = "resnet20", "whitened_resnet"
    assert [TrainConfig(model=name).resolved().whiten for name in models] == [False, True]
    assert TrainConfig(model="resnet20", whiten=True).resolved().whiten
    assert not TrainConfig(model="whitened_resnet", init="some.safetensors").resolved().whiten
    with pytest.raises(ConfigError, match="--whiten: the first convolution comes from --init w"):
        TrainConfig(whiten=True, init="w.safetensors").check()


def test_few_epochs_shift_less():
    crops = [TrainConfig(dataset="cifar10", epochs=n).resolved().crop for n in (1, 10, 11, None)]
    assert crops == [2, 2, 4, 4]
    assert TrainConfig(dataset="cifar10", epochs=2, crop=0).resolved().crop == 0
    assert TrainConfig(dataset="folder").resolved().crop is None


def test_choices_are_those_of_the_packages():
    assert list(settings.DATASETS) == dataset_names()
    assert settings.NORMALIZE == NORMALISATIONS


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"dataset": "cifar"}, r"--dataset: unknown value 'cifar', did you mean 'cifar10'\?"),
        ({"model": "resnet-20"}, r"--model: unknown value 'resnet-20', did you mean 'resnet20'\?"),
        ({"schedule": "cosin"}, r"--schedule: .* did you mean 'cosine'\? Choices: onecycle, "),
        (
            {"optimizer": "xyz"},
            r"--optimizer: unknown value 'xyz'\. Choices: sgd, muon, adam, adamw",
        ),
        ({"normalize": "imagnet"}, r"--normalize: .*'imagenet'"),
        ({"stem": "Cifar"}, r"--stem: .*'cifar'"),
        ({"device": "gpu"}, r"--device: unknown value 'gpu'"),
        ({"epochs": 0}, r"--epochs: must be at least 1, got 0"),
        ({"batch_size": -4}, r"--batch-size: must be at least 1, got -4"),
        ({"lr": 0.0}, r"--lr: must be above 0, got 0"),
        ({"lr": float("nan")}, r"--lr: must be finite, got nan"),
        ({"lr": "fast"}, r"--lr: expected float, got 'fast'"),
        ({"epochs": True}, r"--epochs: expected int, got True"),
        ({"augment": "yes"}, r"--augment: expected bool, got 'yes'"),
        ({"seed": None}, r"--seed: expected int, got None"),
        ({"val_fraction": 1.0}, r"--val-fraction: must be below 1, got 1"),
        ({"label_smoothing": -0.1}, r"--label-smoothing: must be at least 0"),
        ({"early_stopping": 3, "val_fraction": 0.0}, r"--early-stopping: needs a validation"),
    ],
)
def test_bad_values(options: dict, message: str):
    with pytest.raises(ConfigError, match=message) as caught:
        TrainConfig(**options).resolved()
    assert "\n" not in str(caught.value)


def test_round_trip_through_json(tmp_path: Path):
    config = TrainConfig(dataset="cifar10", lr=0.3).resolved()
    path = tmp_path / "config.json"
    path.write_text(json.dumps({"config": config.to_dict(), "versions": {}}))
    assert TrainConfig.load(path) == config
    path.write_text(json.dumps(config.to_dict()))
    assert TrainConfig.load(path) == config


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "not a JSON file"),
        ("[1]", "expected a JSON object, got list"),
        ('{"leraning": 1}', "option: unknown value 'leraning'"),
        ('{"epochs": "three"}', "--epochs: expected int"),
    ],
)
def test_bad_files(tmp_path: Path, text: str, message: str):
    path = tmp_path / "config.json"
    path.write_text(text)
    with pytest.raises(ConfigError, match=message):
        TrainConfig.load(path)


def test_small_pictures_get_the_stem_for_them():
    config = TrainConfig(dataset="cifar10", model="resnet18").resolved()
    assert config.stem == "cifar"
    assert TrainConfig(model="resnet18", stem="imagenet").resolved().stem == "imagenet"
