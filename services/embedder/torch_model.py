"""Models run by torch, on CPU or GPU."""

from __future__ import annotations

import copy
import os
from typing import Final

import torch
from torch import nn
from torch.fx.experimental.optimization import fuse

from services.embedder import weights
from services.embedder.architectures import ARCHITECTURES, Architecture
from services.embedder.model import Model, Pixels, Preprocessing, Vectors, model_id
from services.embedder.settings import EmbedderSettings
from services.shared.errors import InvalidSettings, WeightsUnavailable
from services.shared.imaging import Limits

_MEAN: Final = (0.485, 0.456, 0.406)
_STD: Final = (0.229, 0.224, 0.225)
_SEED: Final = 0
_ERROR_CHARACTERS: Final = 400


class TorchModel:
    """One network on one device."""

    def __init__(
        self,
        network: nn.Module,
        preprocessing: Preprocessing,
        limits: Limits,
        *,
        model_id: str,
        dimension: int,
        device: torch.device,
    ) -> None:
        """Network takes N,3,H,W normalised by ImageNet's mean and deviation and gives N,D."""
        self._network = network.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._preprocessing = preprocessing
        self._limits = limits
        self._model_id = model_id
        self._dimension = dimension
        self._device = device
        mean, std = (
            torch.tensor(values, device=device).view(1, 3, 1, 1) for values in (_MEAN, _STD)
        )
        self._scale, self._shift = 1 / (255 * std), -mean / std

    @property
    def model_id(self) -> str:
        """name@weights-hash/preprocessing/dimension."""
        return self._model_id

    @property
    def dimension(self) -> int:
        """The length of a vector."""
        return self._dimension

    @property
    def input_size(self) -> int:
        """The side of its input, in pixels."""
        return self._preprocessing.crop

    def prepare(self, image: bytes) -> Pixels:
        """The encoded image's pixels. Raises what `imaging.decode` raises."""
        return self._preprocessing.prepare(image, self._limits)

    def embed(self, batch: Pixels) -> Vectors:
        """N vectors, not of unit length yet."""
        with torch.inference_mode():
            # N,H,W,3 in memory is what channels_last means, so permute moves nothing.
            pixels = torch.from_numpy(batch).to(self._device).permute(0, 3, 1, 2)
            normalised = torch.addcmul(self._shift, pixels.float(), self._scale)
            vectors: Vectors = self._network(normalised).float().cpu().numpy()
            return vectors


def load(settings: EmbedderSettings, limits: Limits) -> list[Model]:
    """A model for each worker: one shared by all on the CPU, one on each GPU.

    Raises WeightsUnavailable, or InvalidSettings when there is no such device.
    """
    # One thread a worker and a worker a core: two threads on one batch waste both cores.
    torch.set_num_threads(1)
    devices = _devices(settings.device)
    architecture = ARCHITECTURES[settings.model]
    network = _network(architecture, settings)
    name = settings.model if settings.weights == "pretrained" else f"{settings.model}-random"
    identity = model_id(
        name,
        weights.sha256(network.state_dict()),
        architecture.preprocessing,
        architecture.dimension,
    )
    fused = fuse(network)  # batch norms folded into their convolutions: a third faster
    models = [
        TorchModel(
            copy.deepcopy(fused),
            architecture.preprocessing,
            limits,
            model_id=identity,
            dimension=architecture.dimension,
            device=device,
        )
        for device in devices
    ]
    cores = (os.cpu_count() or 1) if devices[0].type == "cpu" else len(devices)
    return [models[index % len(models)] for index in range(settings.workers or cores)]


def _devices(wanted: str) -> list[torch.device]:
    cuda = torch.cuda.is_available()
    if wanted == "cuda" and not cuda:
        message = "SIMILE_EMBEDDER_DEVICE is cuda and torch finds no GPU: set it to auto or cpu"
        raise InvalidSettings(message)
    if wanted == "cpu" or not cuda:
        return [torch.device("cpu")]
    return [torch.device("cuda", index) for index in range(torch.cuda.device_count())]


def _network(architecture: Architecture, settings: EmbedderSettings) -> nn.Module:
    if settings.weights == "random":
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(_SEED)
            network = architecture.build()
    else:
        file = settings.weights_file
        state = architecture.published() if file is None else weights.from_file(file)
        with torch.device("meta"):  # no time spent on drawing weights that are replaced at once
            network = architecture.build()
        try:
            network.load_state_dict(state, assign=True)
        except RuntimeError as error:
            message = f"the weights don't fit {settings.model}: {str(error)[:_ERROR_CHARACTERS]}"
            raise WeightsUnavailable(message) from error
    return architecture.cut(network).float().eval().requires_grad_(requires_grad=False)
