"""Networks ready to train: images (n, h, w, 3) in, logits (n, num_classes) out."""

from .article import ArticleNet, article_net
from .cifar_resnet import resnet20, resnet32, resnet44, resnet56, resnet110
from .classifier import ImageClassifier
from .plain import plain18, plain20, plain34, plain56
from .preact import (
    PreActResNet,
    preact_resnet18,
    preact_resnet34,
    preact_resnet50,
    preact_resnet101,
    preact_resnet152,
)
from .registry import build, names
from .resnet import (
    ResNet,
    resnet18,
    resnet34,
    resnet50,
    resnet101,
    resnet152,
    resnext50_32x4d,
    wide_resnet50_2,
)
from .whitened import WhitenedResNet, whitened_resnet
from .wide import wide_resnet

__all__ = [
    "ArticleNet",
    "ImageClassifier",
    "PreActResNet",
    "ResNet",
    "WhitenedResNet",
    "article_net",
    "build",
    "names",
    "plain18",
    "plain20",
    "plain34",
    "plain56",
    "preact_resnet18",
    "preact_resnet34",
    "preact_resnet50",
    "preact_resnet101",
    "preact_resnet152",
    "resnet18",
    "resnet20",
    "resnet32",
    "resnet34",
    "resnet44",
    "resnet50",
    "resnet56",
    "resnet101",
    "resnet110",
    "resnet152",
    "resnext50_32x4d",
    "whitened_resnet",
    "wide_resnet",
    "wide_resnet50_2",
]
