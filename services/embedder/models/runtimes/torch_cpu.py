"""Runs networks in torch on CPU cores, without an export."""

from __future__ import annotations

import contextlib
import ctypes
from typing import Final

import torch
from torch import nn

from services.embedder.models.model import Pixels, RuntimeInfo, Vectors
from services.embedder.settings import Precision

_M_TRIM_THRESHOLD: Final = -1
_M_TOP_PAD: Final = -2
_M_MMAP_MAX: Final = -4
_M_ARENA_MAX: Final = -8
_KEEP_BYTES: Final = 2**31 - 1
_GROW_BYTES: Final = 2**28

PRECISIONS: Final = {"bf16": torch.bfloat16, "fp16": torch.float16}


class TorchCpu:
    """A network for several threads."""

    def __init__(self, network: nn.Module, precision: Precision) -> None:
        """`network` takes N,H,W,3 of 0..255 and gives N,D."""
        # A single thread: a worker for each core is faster than two threads on one batch.
        torch.set_num_threads(1)
        keep_memory()
        self._network = network.to(memory_format=torch.channels_last)
        self._dtype = PRECISIONS.get(precision)
        self.info = RuntimeInfo("torch", precision, "cpu")

    def embed(self, batch: Pixels) -> Vectors:
        """Compute N vectors."""
        with torch.inference_mode(), autocast("cpu", self._dtype):
            vectors: Vectors = self._network(torch.from_numpy(batch)).numpy()
            return vectors


def autocast(device: str, dtype: torch.dtype | None) -> contextlib.AbstractContextManager[object]:
    """Return a context that computes in fewer bits where that is safe; None: float32 everywhere."""
    if dtype is None:
        return contextlib.nullcontext()
    return torch.autocast(device, dtype, cache_enabled=False)


def keep_memory() -> None:
    """Make glibc keep freed memory; do nothing with another allocator.

    Torch allocates the output of each layer again. Memory that goes back to the kernel is faulted
    in page by page, which costs more than half of the time of a batch.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return
    for option, value in (
        # Arenas of threads go back to the kernel in pieces of 64 MiB: use the main arena.
        (_M_ARENA_MAX, 1),
        (_M_MMAP_MAX, 0),
        (_M_TRIM_THRESHOLD, _KEEP_BYTES),
        (_M_TOP_PAD, _GROW_BYTES),
    ):
        mallopt(option, value)
