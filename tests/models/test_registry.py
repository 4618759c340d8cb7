"""Models by name."""

from __future__ import annotations

import pytest

from minires import models, nn

__all__: list[str] = []


@pytest.mark.parametrize("name", models.names())
def test_every_name_builds(name: str):
    with nn.init.skip():
        model = models.build(name, 3)
    assert model.num_classes == 3
    assert isinstance(model, models.ImageClassifier)


def test_names_are_the_public_constructors():
    constructors = {n for n in models.__all__ if n.islower()} - {"build", "names", "wide_resnet"}
    assert set(models.names()) == constructors | {"wide_resnet28_10"}


def test_options_and_stem_reach_the_constructor():
    with nn.init.skip():
        assert models.build("resnet18", 10, "cifar").conv1.kernel_size == (3, 3)
        assert models.build("resnet18", 10).conv1.kernel_size == (7, 7)
        assert models.build("resnet20", 10, "cifar").conv1.kernel_size == (3, 3)
        wide = models.build("wide_resnet16_4", 100, dropout=0.3)
        assert models.build("resnet20", shortcut="B").layer2[0].downsample[0].kernel_size == (1, 1)
    assert len(wide.layer1) == 2
    assert wide.layer3[0].conv1.out_channels == 256
    assert wide.layer1[0].dropout.p == 0.3
    assert wide.fc.out_features == 100


def test_unknown_names_and_stems_are_refused():
    with pytest.raises(
        ValueError, match=r"model is 'resnet19' but must be .* \(did you mean resnet1"
    ):
        models.build("resnet19")
    with pytest.raises(ValueError, match=r"model is 'zzz' but must be one of .*wide_resnet28_10$"):
        models.build("zzz")
    with pytest.raises(ValueError, match="resnet20: stem is 'imagenet' but this model has only"):
        models.build("resnet20", stem="imagenet")
    with pytest.raises(ValueError, match="stem is 'cfar' but must be one of imagenet, cifar"):
        models.build("resnet18", stem="cfar")
