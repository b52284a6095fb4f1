"""What is known of each network without building it: how it is fed, and what it makes.

No torch here: an embedder that serves an exported network needs no more.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from services.embedder.models.model import Preprocessing


@dataclass(frozen=True, slots=True)
class Network:
    """One network. release: which trained weights are the published ones."""

    preprocessing: Preprocessing
    dimension: int
    release: str


_LITE: Final = "0.1.0"
_V1: Final = "IMAGENET1K_V1"

NETWORKS: Final[Mapping[str, Network]] = {
    "efficientnet_lite0": Network(Preprocessing(256, 224), 1280, _LITE),
    "efficientnet_lite1": Network(Preprocessing(272, 240), 1280, _LITE),
    "efficientnet_lite2": Network(Preprocessing(292, 260), 1280, _LITE),
    # The classic: the 4096 activations behind the second of three dense layers.
    "vgg16": Network(Preprocessing(256, 224), 4096, _V1),
    # V2's recipe (label smoothing, mixup) classifies better and embeds worse.
    "resnet50": Network(Preprocessing(256, 224), 2048, _V1),
    "efficientnet_v2_s": Network(Preprocessing(384, 384), 1280, _V1),
    "convnext_tiny": Network(Preprocessing(236, 224), 768, _V1),
    "vit_b_16": Network(Preprocessing(256, 224), 768, _V1),
}
