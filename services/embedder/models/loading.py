"""Loads a model for each worker: in torch on GPUs, in the fastest runtime on CPUs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

import structlog

from services.embedder.models import cpu
from services.embedder.models.model import Model
from services.embedder.settings import EmbedderSettings
from services.shared.errors import InvalidSettings, MissingExtra
from services.shared.imaging import Limits

_log = structlog.get_logger(__name__)

_DEVICES: Final = ("nvidia[0-9]*", "dxg", "kfd")
"""Device files of GPUs in /dev: NVIDIA's, those of WSL, AMD's."""

_INSTALL: Final = "pip install 'simile-search[embedder]', or in a clone: make run DEVICE=cuda"
_NO_TORCH: Final = f"SIMILE_EMBEDDER_DEVICE is cuda and torch is not installed: {_INSTALL}"


def load(settings: EmbedderSettings, limits: Limits) -> Sequence[Model]:
    """Load a model for each worker.

    Raises WeightsUnavailable, InvalidSettings, MissingExtra, RuntimeUnfit.
    """
    if _may_use_gpu(settings):
        if cpu.installed("torch"):
            # Not at the top: importing torch takes seconds, and an image for CPUs holds none.
            from services.embedder.models import gpu  # noqa: PLC0415

            if models := gpu.load(settings, limits):
                return models
        elif settings.device == "cuda":
            raise MissingExtra(_NO_TORCH)
        else:
            _log.warning("the GPU is not used: torch is not installed", action="gpu_unused",
                         install=_INSTALL)  # fmt: skip
    if settings.device == "cuda":
        message = "SIMILE_EMBEDDER_DEVICE is cuda and torch finds no GPU: set it to auto or cpu"
        raise InvalidSettings(message)
    return cpu.load(settings, limits)


def _may_use_gpu(settings: EmbedderSettings) -> bool:
    if settings.device == "cpu" or settings.runtime not in {"auto", "torch"}:
        return False
    visible = any(next(Path("/dev").glob(pattern), None) for pattern in _DEVICES)
    return visible or (settings.device == "cuda" and not cpu.installed("torch"))
