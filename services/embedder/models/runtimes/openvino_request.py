"""Runs exported networks in OpenVINO on one CPU core."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import openvino

from services.embedder.models.model import Pixels, RuntimeInfo, Vectors
from services.embedder.settings import Precision

_HINTS: Final = {"fp32": "f32", "bf16": "bf16"}
_NAMES: Final = {openvino.Type.f32: "fp32", openvino.Type.bf16: "bf16"}


class OpenVinoRequest:
    """A compiled network with one request, for one thread at a time."""

    def __init__(self, graph: Path, precision: Precision) -> None:
        core = openvino.Core()
        compiled = core.compile_model(
            core.read_model(graph),
            "CPU",
            {
                # A single thread: a worker for each core is faster than threads that share a batch.
                "INFERENCE_NUM_THREADS": 1,
                "NUM_STREAMS": 1,
                # Workers that pin their threads would all use the first core.
                "ENABLE_CPU_PINNING": False,
                "INFERENCE_PRECISION_HINT": _HINTS[precision],
            },
        )
        # The actual precision: a CPU without bf16 computes in fp32.
        computes_in = compiled.get_property("INFERENCE_PRECISION_HINT")
        self.info = RuntimeInfo("openvino", _NAMES[computes_in], "cpu")
        self._request = compiled.create_infer_request()

    def embed(self, batch: Pixels) -> Vectors:
        """Compute N vectors."""
        # A copy, since the next request writes into the same memory.
        vectors: Vectors = self._request.infer([batch], share_inputs=True)[0].copy()
        return vectors
