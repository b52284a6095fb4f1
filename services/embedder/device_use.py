"""Shows the use of the GPUs as metrics, read from their driver at each scrape."""

from __future__ import annotations

import math
from functools import partial
from typing import Protocol

from services.embedder.metrics import EmbedderMetrics


class Cuda(Protocol):
    """The part of `torch.cuda` that the metrics use."""

    def device_count(self) -> int:
        """Return the number of GPUs."""

    def mem_get_info(self, device: int) -> tuple[int, int]:
        """Return the free and the total memory, in bytes."""

    def utilization(self, device: int) -> int:
        """Return the utilization in percent. Raises any error of nvidia-ml-py."""


def show_devices(metrics: EmbedderMetrics, cuda: Cuda) -> None:
    """Add the metrics of every GPU."""
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
    except RuntimeError:  # a lost GPU must not break the scrape
        return math.nan
    return total - free


def _utilization(cuda: Cuda, index: int) -> float:
    try:
        return cuda.utilization(index) / 100
    except Exception:  # noqa: BLE001 (the driver's library raises its own errors, or is missing)
        return math.nan
