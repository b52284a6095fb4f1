"""The metrics of GPUs never break the other metrics."""

from __future__ import annotations

import math
from dataclasses import dataclass

import pytest
from prometheus_client import CollectorRegistry, generate_latest

from services.embedder.metrics import EmbedderMetrics, show_devices

GIB = 2**30


@dataclass
class _Cuda:
    """Simulates two GPUs of 24 GiB; lost ones raise, as torch does."""

    lost: bool = False
    watched: bool = True

    def device_count(self) -> int:
        return 2

    def mem_get_info(self, device: int) -> tuple[int, int]:
        if self.lost:
            message = "CUDA error: the GPU has fallen off the bus"
            raise RuntimeError(message)
        return (20 - device) * GIB, 24 * GIB

    def utilization(self, device: int) -> int:
        if not self.watched:
            message = "pynvml does not seem to be installed"
            raise ModuleNotFoundError(message)
        return 40 + device


@pytest.fixture
def registry() -> CollectorRegistry:
    """Return a registry for the metrics."""
    return CollectorRegistry()


def _value(registry: CollectorRegistry, name: str, device: str) -> float | None:
    return registry.get_sample_value(f"simile_embedder_device_{name}", {"device": device})


def test_every_gpu_is_shown(registry: CollectorRegistry) -> None:
    """Memory is in bytes, utilization is a ratio."""
    show_devices(EmbedderMetrics(registry), _Cuda())
    assert _value(registry, "memory_used_bytes", "cuda:0") == 4 * GIB
    assert _value(registry, "memory_used_bytes", "cuda:1") == 5 * GIB
    assert _value(registry, "memory_total_bytes", "cuda:1") == 24 * GIB
    assert _value(registry, "utilization_ratio", "cuda:1") == pytest.approx(0.41)


def test_without_the_drivers_library_utilization_is_left_out(registry: CollectorRegistry) -> None:
    """An unknown utilization is absent, not 0."""
    show_devices(EmbedderMetrics(registry), _Cuda(watched=False))
    assert _value(registry, "utilization_ratio", "cuda:0") is None
    assert _value(registry, "memory_used_bytes", "cuda:0") == 4 * GIB


def test_a_lost_gpu_does_not_end_the_metrics(registry: CollectorRegistry) -> None:
    """The use of a lost GPU is NaN, and the other metrics are exposed."""
    cuda = _Cuda()
    show_devices(EmbedderMetrics(registry), cuda)
    cuda.lost = True
    assert b"simile_embedder_in_hand_images" in generate_latest(registry)
    assert math.isnan(_value(registry, "memory_used_bytes", "cuda:0") or 0.0)
