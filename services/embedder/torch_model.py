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
    """A model for each worker: on CPU all share one, on GPUs each has its own.

    Raises WeightsUnavailable, or InvalidSettings when there is no such device.
    """
    # One thread a worker and a worker a core: two threads on one batch waste both cores.
    torch.set_num_threads(1)
    architecture = ARCHITECTURES[settings.model]
    network = _network(architecture, settings)
    name = settings.model if settings.weights == "pretrained" else f"{settings.model}-random"
    identity = model_id(
        name,
        weights.sha256(network.state_dict()),
        architecture.preprocessing,
        architecture.dimension,
    )
    # Batch norms folded into their convolutions: up to a third faster, the same vectors.
    fused = fuse(architecture.cut(network))
    models: dict[torch.device, Model] = {}
    for device in _devices(settings):
        if device not in models:
            models[device] = TorchModel(
                copy.deepcopy(fused),
                architecture.preprocessing,
                limits,
                model_id=identity,
                dimension=architecture.dimension,
                device=device,
            )
    return [models[device] for device in _devices(settings)]


def _network(architecture: Architecture, settings: EmbedderSettings) -> nn.Module:
    """The whole network with the weights asked for, ready to infer. Raises WeightsUnavailable."""
    if settings.weights == "random":
        # The same in every process, or embedder and index builder would never agree.
        torch.manual_seed(_SEED)
        return architecture.build().eval()
    network = architecture.build()
    file = settings.weights_file
    state = architecture.published() if file is None else weights.from_file(file)
    try:
        network.load_state_dict(state)
    except RuntimeError as error:
        message = f"the weights don't fit {settings.model}: {error}"
        raise WeightsUnavailable(message) from error
    return network.eval()


def _devices(settings: EmbedderSettings) -> list[torch.device]:
    """The device of each worker: GPUs in turn, or the CPU as often as it has cores."""
    gpus = torch.cuda.device_count() if settings.device != "cpu" else 0
    if settings.device == "cuda" and gpus == 0:
        message = "SIMILE_EMBEDDER_DEVICE is cuda, but torch sees no GPU here; use auto or cpu"
        raise InvalidSettings(message)
    if gpus:
        return [torch.device("cuda", number % gpus) for number in range(settings.workers or gpus)]
    return [torch.device("cpu")] * (settings.workers or os.cpu_count() or 1)
