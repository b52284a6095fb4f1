"""Reads and writes networks exported to files, which other runtimes serve without torch.

<models_dir>/<model id, / as -->/ holds network.onnx, export.json, and reference.npz: some inputs
with torch's own vectors, to check a runtime before it is used. A folder is written as a whole.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

import numpy as np
import structlog

from services.embedder.models.model import Pixels, Vectors
from services.embedder.models.networks import NETWORKS
from services.embedder.settings import EmbedderSettings
from services.shared.errors import WeightsUnavailable
from services.shared.json_text import read_json

_log = structlog.get_logger(__name__)

INPUT: Final = "pixels"
"""The graph's input: N,H,W,3 of 0..255 (uint8), any N."""

_FORMAT: Final = 1
_GRAPH: Final = "network.onnx"
_FACTS: Final = "export.json"
_REFERENCE: Final = "reference.npz"


@dataclass(frozen=True, slots=True)
class Facts:
    """The content of export.json.

    Attributes:
        source: names the weights, and is found without loading them.
        graph_sha256: of the ONNX file.
        torch: the version that exported; empty where the graph was written without torch.
    """

    format: int
    source: str
    model_id: str
    dimension: int
    graph_sha256: str
    torch: str


@dataclass(frozen=True, slots=True)
class Exported:
    """An exported network."""

    folder: Path
    facts: Facts

    @property
    def graph(self) -> Path:
        """The ONNX file."""
        return self.folder / _GRAPH

    def reference(self) -> tuple[Pixels, Vectors]:
        """Return some inputs and torch's float32 vectors of them. Raises WeightsUnavailable."""
        try:
            with np.load(self.folder / _REFERENCE, allow_pickle=False) as stored:
                return stored["pixels"], stored["vectors"]
        except (OSError, ValueError, KeyError) as error:
            message = f"{self.folder} is damaged ({error}): delete it, to export the network again"
            raise WeightsUnavailable(message) from error


def source(settings: EmbedderSettings) -> str:
    """Name the weights that the settings select. Raises WeightsUnavailable."""
    if settings.weights == "random":
        return f"{settings.model} random"
    if settings.weights_file is None:
        return f"{settings.model} {NETWORKS[settings.model].release}"
    try:
        return f"{settings.model} sha256:{_sha256(settings.weights_file)}"
    except OSError as error:
        message = f"{settings.weights_file} can't be read as weights: {error}"
        raise WeightsUnavailable(message) from error


def find(models_dir: Path, settings: EmbedderSettings) -> Exported | None:
    """Find the export of the network that the settings select; None without a sound one."""
    wanted = source(settings)
    network = NETWORKS[settings.model]
    suffix = f"/{network.preprocessing.name}/{network.dimension}"
    for folder in sorted(models_dir.glob(f"{settings.model}*@*")):
        exported = _read(folder)
        if (
            exported is not None
            and exported.facts.source == wanted
            and exported.facts.model_id.endswith(suffix)
        ):
            return exported
    return None


def write(
    models_dir: Path, graph: Path, facts: Facts, reference: tuple[Pixels, Vectors]
) -> Exported:
    """Write an export, as a whole or not at all; `graph` is moved. Raises OSError."""
    folder = models_dir / facts.model_id.replace("/", "--")
    models_dir.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".partial-", dir=models_dir) as partial:
        whole = Path(partial) / "whole"
        whole.mkdir()
        shutil.move(graph, whole / _GRAPH)
        pixels, vectors = reference
        np.savez(whole / _REFERENCE, pixels=pixels, vectors=vectors)
        (whole / _FACTS).write_text(json.dumps(asdict(facts), indent=2) + "\n")
        if folder.exists() and _read(folder) is None:
            folder.rename(Path(partial) / "damaged")
        try:
            whole.rename(folder)
        except OSError:
            # Another process has written the same export.
            if _read(folder) is None:
                raise
    return Exported(folder, facts)


def facts_of(graph: Path, source: str, model_id: str, dimension: int, torch: str) -> Facts:
    """Return the content of export.json for a graph."""
    return Facts(_FORMAT, source, model_id, dimension, _sha256(graph), torch)


def _read(folder: Path) -> Exported | None:
    try:
        facts = Facts(**read_json((folder / _FACTS).read_text()))
        damaged = facts.format == _FORMAT and _sha256(folder / _GRAPH) != facts.graph_sha256
    except (OSError, ValueError, TypeError) as error:
        _log.warning("an export can't be read", action="export_damaged", folder=str(folder),
                     why=str(error))  # fmt: skip
        return None
    if damaged:
        _log.warning("an export is damaged", action="export_damaged", folder=str(folder))
    return None if damaged or facts.format != _FORMAT else Exported(folder, facts)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
