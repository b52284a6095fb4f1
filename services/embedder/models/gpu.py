"""Models on GPUs, some workers on each."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from services.embedder.models import export, parity, speed
from services.embedder.models.architectures import build
from services.embedder.models.model import Model, NetworkModel
from services.embedder.models.networks import NETWORKS
from services.embedder.models.runtimes.torch_cuda import CudaGraphs, devices, placed, sizes
from services.embedder.settings import EmbedderSettings
from services.shared.imaging import Limits

_MAX_BATCH: Final = 64
_WORKERS: Final = 2
"""Of each GPU: while one's batch is being copied, another's is computed."""


def load(settings: EmbedderSettings, limits: Limits) -> Sequence[Model]:
    """A model for each worker; none where torch finds no GPU.

    Raises WeightsUnavailable, RuntimeUnfit.
    """
    gpus = devices()
    if not gpus:
        return []
    network, built = NETWORKS[settings.model], build(settings)
    size = network.preprocessing.crop
    most = settings.max_batch_size or _MAX_BATCH
    networks = {device: placed(built.network, device) for device in gpus}
    workers = settings.workers or _WORKERS * len(gpus)
    graphs = [
        CudaGraphs(
            networks[gpus[worker % len(gpus)]],
            gpus[worker % len(gpus)],
            settings.precision,
            input_size=size,
            max_batch_size=most,
        )
        for worker in range(workers)
    ]
    pixels = parity.reference_pixels(size)
    reference = export.reference_vectors(built, pixels)
    for start in range(0, len(pixels), most):
        for one in graphs[: len(gpus)]:
            parity.check(one, pixels[start : start + most], reference[start : start + most])
    identity = export.identity(built, settings)
    best = settings.max_batch_size or speed.measure(graphs[0], pixels, sizes(most)).at_once
    return [
        NetworkModel(identity, network.dimension, network.preprocessing, limits, one, most, best)
        for one in graphs
    ]
