"""Runs exported networks in ONNX Runtime on one CPU core."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

# Official builds send telemetry to Microsoft unless this is set before they are loaded.
os.environ["ORT_DISABLE_TELEMETRY"] = "1"

import onnxruntime

from services.embedder.models.exported import INPUT
from services.embedder.models.model import Pixels, RuntimeInfo, Vectors

_ERRORS_ONLY: Final = 3


class OnnxSession:
    """A session for several threads, each with its own batch."""

    info = RuntimeInfo("onnxruntime", "fp32", "cpu")

    def __init__(self, graph: Path) -> None:
        options = onnxruntime.SessionOptions()
        # A single thread: a worker for each core is faster than two threads on one batch.
        options.intra_op_num_threads = 1
        options.inter_op_num_threads = 1
        options.log_severity_level = _ERRORS_ONLY
        self._session = onnxruntime.InferenceSession(
            graph, options, providers=["CPUExecutionProvider"]
        )

    def embed(self, batch: Pixels) -> Vectors:
        """Compute N vectors."""
        vectors: Vectors = self._session.run(None, {INPUT: batch})[0]
        return vectors
