"""The networks by name, and models that run them.

No torch is imported: an embedder that serves an exported network needs none.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np

from services.embedder.models.model import Pixels, Preprocessing, Runtime, RuntimeInfo, Vectors
from services.shared.contracts import Box
from services.shared.imaging import Limits, Probe


@dataclass(frozen=True, slots=True)
class Network:
    """The properties of a network.

    Attributes:
        preprocessing: makes its input of an image.
        dimension: the length of its vectors.
        release: the version of its published weights.
    """

    preprocessing: Preprocessing
    dimension: int
    release: str


@dataclass(frozen=True, slots=True)
class NetworkModel:
    """A network in a runtime, with the preprocessing that it was trained with.

    Attributes:
        chunk_images: images that are computed together; a larger batch runs in chunks.
    """

    model_id: str
    network: Network
    limits: Limits
    runner: Runtime
    chunk_images: int
    batch_limit: int

    @property
    def dimension(self) -> int:
        """The length of a vector."""
        return self.network.dimension

    @property
    def input_size(self) -> int:
        """The side of the network's input, in pixels."""
        return self.network.preprocessing.crop

    @property
    def runtime(self) -> RuntimeInfo:
        """The library, precision and device."""
        return self.runner.info

    def prepare(
        self, image: bytes, box: Box | None = None, *, known: Probe | None = None
    ) -> Pixels:
        """Decode an image, or a box of it. Raises the errors of `imaging.decode`."""
        return self.network.preprocessing.prepare(image, self.limits, box, known=known)

    def embed(self, batch: Pixels) -> Vectors:
        """Compute N vectors, not of unit length yet."""
        size = self.chunk_images
        starts = range(0, len(batch), size)
        chunks = [self.runner.embed(batch[start : start + size]) for start in starts]
        return chunks[0] if len(chunks) == 1 else np.concatenate(chunks)


_LITE: Final = "0.1.0"
_V1: Final = "IMAGENET1K_V1"

NETWORKS: Final[Mapping[str, Network]] = {
    "efficientnet_lite0": Network(Preprocessing(256, 224), 1280, _LITE),
    "efficientnet_lite1": Network(Preprocessing(272, 240), 1280, _LITE),
    "efficientnet_lite2": Network(Preprocessing(292, 260), 1280, _LITE),
    # The 4096 activations behind the second of three dense layers.
    "vgg16": Network(Preprocessing(256, 224), 4096, _V1),
    # The V2 weights (label smoothing, mixup) classify better and embed worse.
    "resnet50": Network(Preprocessing(256, 224), 2048, _V1),
    "efficientnet_v2_s": Network(Preprocessing(384, 384), 1280, _V1),
    "convnext_tiny": Network(Preprocessing(236, 224), 768, _V1),
    "vit_b_16": Network(Preprocessing(256, 224), 768, _V1),
}
