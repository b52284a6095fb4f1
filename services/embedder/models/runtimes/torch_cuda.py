"""Networks run by torch on GPUs: a CUDA graph for each batch size, replayed on a stream.

A graph spares the launch of some hundred kernels a batch. Inputs go through pinned memory, so that
the copy of one worker's batch overlaps the computing of another's.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from torch import nn

from services.embedder.models.model import Pixels, Runs, Vectors
from services.embedder.models.runtimes.torch_cpu import PRECISIONS, autocast
from services.embedder.settings import Precision

_WARM_RUNS: Final = 3


def devices() -> list[torch.device]:
    """The GPUs that torch can use."""
    if not torch.cuda.is_available():
        return []
    return [torch.device("cuda", index) for index in range(torch.cuda.device_count())]


def placed(network: nn.Module, device: torch.device) -> nn.Module:
    """A copy of the network on that GPU, laid out as its tensor cores want it."""
    return copy.deepcopy(network).to(device, memory_format=torch.channels_last)  # type: ignore[call-overload, no-any-return]


def sizes(most: int) -> list[int]:
    """The batch sizes that graphs are made for: powers of two, and `most` itself."""
    powers = [2**power for power in range(most.bit_length()) if 2**power < most]
    return [*powers, most]


@dataclass(frozen=True, slots=True)
class _Captured:
    """A recorded run of one batch size, and the memory that it reads and writes for ever."""

    graph: torch.cuda.CUDAGraph
    staging: torch.Tensor
    pixels: torch.Tensor
    vectors: torch.Tensor
    result: torch.Tensor


class CudaGraphs:
    """One worker of a GPU, with a stream and graphs of its own; workers share the weights."""

    def __init__(
        self,
        network: nn.Module,
        device: torch.device,
        precision: Precision,
        *,
        input_size: int,
        max_batch_size: int,
    ) -> None:
        """`network` is on the device, takes N,H,W,3 of 0..255, and gives N,D float32."""
        self._network = network
        self._device = device
        self._dtype = PRECISIONS.get(precision)
        self._stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        # One pool for all graphs: they never run at the same time, and each result is copied out.
        self._pool = torch.cuda.graph_pool_handle()
        self.runs = Runs("torch", precision, torch.cuda.get_device_name(device))
        with torch.cuda.device(device), torch.inference_mode():
            # The largest first: the smaller ones then fit into the memory that it took.
            self._captured = {
                size: self._capture((size, input_size, input_size, 3))
                for size in reversed(sizes(max_batch_size))
            }

    def embed(self, batch: Pixels) -> Vectors:
        """N vectors, of at most max_batch_size images."""
        count = len(batch)
        captured = self._captured[min(size for size in self._captured if size >= count)]
        # What is left of an earlier batch fills the graph's other places and is thrown away.
        with torch.cuda.device(self._device), torch.inference_mode():
            captured.staging[:count].copy_(torch.from_numpy(batch))
            with torch.cuda.stream(self._stream):
                captured.pixels.copy_(captured.staging, non_blocking=True)
                captured.graph.replay()
                captured.result.copy_(captured.vectors, non_blocking=True)
            self._stream.synchronize()
            vectors: Vectors = np.array(captured.result[:count].numpy())
            return vectors

    def _capture(self, shape: tuple[int, ...]) -> _Captured:
        staging = torch.zeros(shape, dtype=torch.uint8, pin_memory=True)
        pixels = staging.to(self._device)
        with torch.cuda.stream(self._stream), autocast("cuda", self._dtype):
            # cuDNN chooses its algorithms in the first runs, which a graph can't record.
            for _ in range(_WARM_RUNS):
                self._network(pixels)
        self._stream.synchronize()
        graph = torch.cuda.CUDAGraph()
        # thread_local: other workers' threads may use the GPU meanwhile.
        with (
            torch.cuda.graph(
                graph, pool=self._pool, stream=self._stream, capture_error_mode="thread_local"
            ),
            autocast("cuda", self._dtype),
        ):
            vectors = self._network(pixels)
        result = torch.empty(vectors.shape, dtype=torch.float32, pin_memory=True)
        return _Captured(graph, staging, pixels, vectors, result)
