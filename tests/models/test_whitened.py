"""`whitened_resnet`: how it starts, and what it does not train."""

from __future__ import annotations

import numpy as np

from minires import functional as F
from minires import models
from minires.tensor import tensor

__all__: list[str] = []


def test_the_whitened_net_whitens(rng: np.random.Generator):
    model = models.whitened_resnet(5, widths=(32, 32, 40))
    mixed = rng.standard_normal((60, 16, 16, 3)) @ rng.standard_normal((3, 3))
    mixed[:, :, 1:] += mixed[:, :, :-1]
    model.whiten(mixed.astype(np.float32))
    y = F.conv2d(mixed.astype(np.float32), model.conv1.weight).numpy().reshape(-1, 24)
    np.testing.assert_allclose(y[:, :12], -y[:, 12:], atol=1e-4)
    moments = y[:, :12].T @ y[:, :12] / len(y)
    np.testing.assert_allclose(moments, np.eye(12), atol=0.05)  # LEAST_VARIANCE is in the way


def test_the_whitened_net_starts_by_passing_its_input_on(rng: np.random.Generator):
    model = models.whitened_resnet(5, widths=(32, 32, 40))
    for i, stage in enumerate(model.stages()):
        x = rng.standard_normal((2, 8, 8, (24, 32, 32)[i])).astype(np.float32)
        y = stage.conv1(tensor(x)).numpy()
        np.testing.assert_array_equal(y[..., : x.shape[3]], x)
        assert y[..., x.shape[3] :].any() == (y.shape[3] > x.shape[3])
    x = rng.standard_normal((3, 32, 32, 3)).astype(np.float32)
    assert [y.shape[1:] for y in model.features(x)] == [(15, 15, 32), (7, 7, 32), (3, 3, 40)]
    model(x).backward(np.ones((3, 5)))
    assert {name for name, p in model.named_parameters() if p.grad is None} == {
        "conv1.weight",
        *(f"layer{i}.bn{k}.weight" for i in (1, 2, 3) for k in (1, 2)),
    }
