"""Observes a process: logs, metrics, traces, health."""

from __future__ import annotations

from dataclasses import dataclass, field

from prometheus_client import CollectorRegistry, ProcessCollector, disable_created_metrics

from services.shared.telemetry.health import Health, HealthMetrics
from services.shared.telemetry.tracing import NoTracing, Tracing


def _registry() -> CollectorRegistry:
    """Return a registry with the metrics of the process: CPU seconds, memory, open files."""
    disable_created_metrics()  # type: ignore[no-untyped-call]  # they would double the number of series
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    return registry


@dataclass(frozen=True, slots=True)
class Telemetry:
    """Bundles the metrics registry, the health checks and the tracing of a process."""

    registry: CollectorRegistry = field(default_factory=_registry)
    health: Health = field(default_factory=Health)
    tracing: Tracing = field(default_factory=NoTracing)

    def __post_init__(self) -> None:
        HealthMetrics(self.registry).show(self.health)
