"""Every kind of network on the device: it learns and answers as on the CPU."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import numpy as np
import pytest

import minires as mr
import minires.functional as F
from minires.models import wide_resnet
from minires.models.article import ArticleNet
from minires.models.preact import PreActBlock, PreActBottleneck, PreActResNet
from minires.models.resnet import BasicBlock, Bottleneck, PlainBlock, ResNet
from minires.models.whitened import WhitenedResNet
from tests.gpu import device
from tests.tolerances import GPU_STEPS64

__all__: list[str] = []

pytestmark = pytest.mark.gpu

SMALL = {"num_classes": 5, "stem": "cifar", "widths": (4, 8)}
# each block, stem and shortcut of the registry's networks, few and narrow layers of them
NETWORKS: dict[str, Callable[[], Any]] = {
    "resnet": lambda: ResNet(BasicBlock, (1, 1), **{**SMALL, "stem": "imagenet"}),
    "padded": lambda: ResNet(BasicBlock, (1, 1), **SMALL, shortcut="A"),
    "bottleneck": lambda: ResNet(Bottleneck, (1, 1), **SMALL, groups=2, width_per_group=16),
    "plain": lambda: ResNet(PlainBlock, (1, 1), **SMALL),
    "preact": lambda: PreActResNet(PreActBlock, (1, 1), **SMALL),
    "preact-bottleneck": lambda: PreActResNet(PreActBottleneck, (1, 1), **SMALL),
    "wide": lambda: wide_resnet(10, 1, num_classes=5, dropout=0.3),
    "article": lambda: ArticleNet(5, widths=(4,) * 5),
    "whitened": lambda: WhitenedResNet(5, widths=(24, 24)),
}


def results(make: Callable[[], Any], where: str, images: np.ndarray, target: Any) -> list[Any]:
    """A step's loss, gradients and running statistics, and then the logits in evaluation."""
    mr.manual_seed(5)
    net = make().to("float64")
    if isinstance(net, WhitenedResNet):
        net.whiten(images)
    net.to(where)
    x, target = (mr.tensor(a, device=where) for a in (images, target))
    mr.manual_seed(6)  # of dropout
    strict = where == "cuda" and device.installed() and device.forbidden("copy_to_host")
    with strict or nullcontext():
        loss = F.cross_entropy(net(x), target.array)
        loss.backward()
        with mr.no_grad():
            logits = net.eval()(x)
    grads = [p.grad for p in net.parameters() if p.requires_grad]
    kept = [array for _, array in net.named_buffers()]
    return [mr.tensor(a).numpy() for a in (loss.array, logits.array, *grads, *kept)]


@pytest.mark.parametrize("make", NETWORKS.values(), ids=NETWORKS)
def test_networks_learn_and_answer_as_on_the_cpu(cupy: Any, make: Any, rng: np.random.Generator):
    images, target = rng.standard_normal((4, 16, 16, 3)), rng.integers(0, 5, 4)
    expected, found = (results(make, where, images, target) for where in ("cpu", "cuda"))
    assert len(found) == len(expected)
    for a, b in zip(found, expected, strict=True):
        assert np.linalg.norm(a - b) <= GPU_STEPS64 * max(np.linalg.norm(b), 1)
