"""Loads models for GPUs, two workers for each by default."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from services.embedder.models import export, parity, speed
from services.embedder.models.architectures import build
from services.embedder.models.model import Model
from services.embedder.models.networks import NETWORKS, NetworkModel
from services.embedder.models.runtimes.torch_cuda import CudaGraphs, devices, placed, sizes
from services.embedder.settings import EmbedderSettings
from services.shared.imaging import Limits

_MAX_BATCH: Final = 64
_WORKERS: Final = 2
"""For each GPU: while one copies its batch, the other computes."""


def load(settings: EmbedderSettings, limits: Limits) -> Sequence[Model]:
    """Load a model for each worker; none where torch finds no GPU.

    Raises WeightsUnavailable, RuntimeUnfit.
    """
    gpus = devices()
    if not gpus:
        return []
    network, built = NETWORKS[settings.model], build(settings)
    size = network.preprocessing.crop
    max_batch = settings.max_batch_size or _MAX_BATCH
    networks = {device: placed(built.network, device) for device in gpus}
    workers = settings.workers or _WORKERS * len(gpus)
    graphs = [
        CudaGraphs(
            networks[gpus[worker % len(gpus)]],
            gpus[worker % len(gpus)],
            settings.precision,
            input_size=size,
            max_batch_size=max_batch,
        )
        for worker in range(workers)
    ]
    pixels = parity.reference_pixels(size)
    reference = export.reference_vectors(built, pixels)
    for start in range(0, len(pixels), max_batch):
        part = slice(start, start + max_batch)
        for one in graphs[: len(gpus)]:
            parity.check(one, pixels[part], reference[part])
    identity = export.identity(built, settings)
    best = (
        settings.max_batch_size or speed.measure(graphs[0], pixels, sizes(max_batch)).chunk_images
    )
    return [NetworkModel(identity, network, limits, one, max_batch, best) for one in graphs]
