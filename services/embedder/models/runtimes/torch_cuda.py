"""Runs networks in torch on GPUs: a CUDA graph for each batch size, replayed on a stream.

A graph saves the launch of some hundred kernels for each batch. Inputs go through pinned memory, so
that one worker's batch is copied while another's is computed.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from torch import nn

from services.embedder.models.model import Pixels, RuntimeInfo, Vectors
from services.embedder.models.runtimes.torch_cpu import PRECISIONS, autocast
from services.embedder.settings import Precision

_WARM_RUNS: Final = 3


def devices() -> list[torch.device]:
    """Return the GPUs that torch can use."""
    if not torch.cuda.is_available():
        return []
    return [torch.device("cuda", index) for index in range(torch.cuda.device_count())]


def placed(network: nn.Module, device: torch.device) -> nn.Module:
    """Copy the network to a GPU, in the memory layout of its tensor cores."""
    return copy.deepcopy(network).to(device, memory_format=torch.channels_last)  # type: ignore[call-overload, no-any-return]


def sizes(max_size: int) -> list[int]:
    """Return the batch sizes that graphs are made for: powers of two, and `max_size` itself."""
    powers = [2**power for power in range(max_size.bit_length()) if 2**power < max_size]
    return [*powers, max_size]


@dataclass(frozen=True, slots=True)
class _Captured:
    """A recorded run of one batch size, and the fixed memory that it reads and writes."""

    graph: torch.cuda.CUDAGraph
    staging: torch.Tensor
    pixels: torch.Tensor
    vectors: torch.Tensor
    result: torch.Tensor


class CudaGraphs:
    """A worker of a GPU with its own stream and graphs; workers share the weights."""

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
        # A pool for all graphs: they never run at the same time, and results are copied out.
        self._pool = torch.cuda.graph_pool_handle()
        self.info = RuntimeInfo("torch", precision, torch.cuda.get_device_name(device))
        with torch.cuda.device(device), torch.inference_mode():
            # The largest first: the smaller ones fit into its memory.
            self._captured = {
                size: self._capture((size, input_size, input_size, 3))
                for size in reversed(sizes(max_batch_size))
            }

    def embed(self, batch: Pixels) -> Vectors:
        """Compute the vectors of at most `max_batch_size` images."""
        count = len(batch)
        captured = self._captured[min(size for size in self._captured if size >= count)]
        # Images of an earlier batch fill the graph's other places; their vectors are dropped.
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
        # thread_local: the threads of other workers may use the GPU meanwhile.
        with (
            torch.cuda.graph(
                graph, pool=self._pool, stream=self._stream, capture_error_mode="thread_local"
            ),
            autocast("cuda", self._dtype),
        ):
            vectors = self._network(pixels)
        result = torch.empty(vectors.shape, dtype=torch.float32, pin_memory=True)
        return _Captured(graph, staging, pixels, vectors, result)
