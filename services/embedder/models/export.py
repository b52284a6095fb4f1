"""Exports a network from torch to a file that other runtimes read. Needs torch and onnxscript."""

from __future__ import annotations

import contextlib
import io
import logging
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import structlog
import torch

from services.embedder.models import exported
from services.embedder.models.architectures import Built
from services.embedder.models.exported import Exported
from services.embedder.models.model import Pixels, Vectors, model_id
from services.embedder.models.networks import NETWORKS
from services.embedder.models.parity import reference_pixels
from services.embedder.settings import EmbedderSettings

_log = structlog.get_logger(__name__)

_MAX_BATCH: Final = 256
"""Images in a batch, at most: the bound that the exported graph is made for."""


def identity(built: Built, settings: EmbedderSettings) -> str:
    """Return the model id of a network with its weights."""
    network = NETWORKS[settings.model]
    name = settings.model if settings.weights == "pretrained" else f"{settings.model}-random"
    return model_id(name, built.weights_sha256, network.preprocessing, network.dimension)


def export(models_dir: Path, built: Built, settings: EmbedderSettings) -> Exported:
    """Write the network as ONNX, with reference vectors. Raises OSError."""
    network = NETWORKS[settings.model]
    pixels = reference_pixels(network.preprocessing.crop)
    with tempfile.TemporaryDirectory() as folder:
        graph = Path(folder) / "network.onnx"
        _write_graph(built, pixels, graph)
        facts = exported.facts_of(
            graph,
            exported.source(settings),
            identity(built, settings),
            network.dimension,
            torch.__version__,
        )
        done = exported.write(models_dir, graph, facts, (pixels, reference_vectors(built, pixels)))
    _log.info("network exported", action="export", model_id=facts.model_id, folder=str(done.folder))
    return done


def reference_vectors(built: Built, pixels: Pixels) -> Vectors:
    """Compute torch's own vectors, in float32 on the CPU."""
    with torch.inference_mode():
        vectors: Vectors = built.network(torch.from_numpy(pixels)).numpy()
        return vectors


def _write_graph(built: Built, pixels: Pixels, graph: Path) -> None:
    example = torch.from_numpy(pixels[:2])
    with _quietly():
        torch.onnx.export(
            built.network,
            (example,),
            graph,
            input_names=[exported.INPUT],
            output_names=["vectors"],
            dynamic_shapes=({0: torch.export.Dim("batch", min=1, max=_MAX_BATCH)},),
            external_data=False,
            dynamo=True,
            verbose=False,
        )


@contextlib.contextmanager
def _quietly() -> Iterator[None]:
    """Silence the exporter, which logs, warns and prints."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
