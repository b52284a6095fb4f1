"""Loads weights from an installed package, torchvision's hub, or a file.

All are plain state dicts, loaded with `weights_only`: no code in a file is run.
"""

from __future__ import annotations

import hashlib
import pickle
from collections.abc import Mapping
from pathlib import Path

import torch
import torchvision

from services.embedder.models.packaged import weights_file
from services.shared.errors import WeightsUnavailable

State = Mapping[str, torch.Tensor]


def from_file(path: Path) -> State:
    """Load the state dict in a file. Raises WeightsUnavailable."""
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, EOFError, pickle.UnpicklingError) as error:
        message = f"{path} can't be read as weights (a state dict saved by torch.save): {error}"
        raise WeightsUnavailable(message) from error
    if not isinstance(state, Mapping):
        message = f"{path} holds a {type(state).__name__}: give the file of a state dict"
        raise WeightsUnavailable(message)
    return state


def from_package(package: str) -> State:
    """Load the only .pth file of a package without running its code. Raises WeightsUnavailable."""
    return from_file(weights_file(package))


def from_hub(architecture: str, version: str) -> State:
    """Load torchvision's weights, downloaded once into TORCH_HOME. Raises WeightsUnavailable."""
    weights = torchvision.models.get_model_weights(architecture)[version]
    try:
        state: State = weights.get_state_dict(progress=False, check_hash=True)
    except (OSError, RuntimeError) as error:  # URLError is an OSError, a wrong hash a RuntimeError
        message = (
            f"the weights of {architecture} can't be downloaded from {weights.url} ({error}): "
            "fetch that file where there is a network and name it in SIMILE_EMBEDDER_WEIGHTS_FILE"
        )
        raise WeightsUnavailable(message) from error
    return state


def sha256(state: State) -> str:
    """Return the hash of all names and values; the format of the file does not matter."""
    digest = hashlib.sha256()
    for name in sorted(state):
        tensor = state[name].detach().cpu().contiguous()
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
