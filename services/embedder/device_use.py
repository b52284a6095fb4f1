"""How much of the GPUs is in use, as their driver says; read when the metrics are."""

from __future__ import annotations

import math
from functools import partial
from typing import Protocol

from services.embedder.metrics import EmbedderMetrics


class Cuda(Protocol):
    """What is asked of `torch.cuda`."""

    def device_count(self) -> int:
        """How many GPUs there are."""

    def mem_get_info(self, device: int) -> tuple[int, int]:
        """Bytes free, and in all."""

    def utilization(self, device: int) -> int:
        """Percent. Raises what nvidia-ml-py raises, or that it is missing."""


def show_devices(metrics: EmbedderMetrics, cuda: Cuda) -> None:
    """Show every GPU from now on."""
    for index in range(cuda.device_count()):
        device = f"cuda:{index}"
        total = cuda.mem_get_info(index)[1]
        metrics.device_memory_total.labels(device).set(total)
        metrics.device_memory_used.labels(device).set_function(partial(_used_bytes, cuda, index))
        if not math.isnan(_utilization(cuda, index)):
            metrics.device_utilization.labels(device).set_function(
                partial(_utilization, cuda, index)
            )


def _used_bytes(cuda: Cuda, index: int) -> float:
    try:
        free, total = cuda.mem_get_info(index)
    except RuntimeError:  # a GPU that is lost must not take the other metrics along
        return math.nan
    return total - free


def _utilization(cuda: Cuda, index: int) -> float:
    try:
        return cuda.utilization(index) / 100
    except Exception:  # noqa: BLE001 (the driver's library has errors of its own, or is missing)
        return math.nan
