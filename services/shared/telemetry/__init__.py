"""What a process tells about itself: logs, metrics, traces, health."""

from __future__ import annotations

from dataclasses import dataclass, field

from prometheus_client import CollectorRegistry, ProcessCollector, disable_created_metrics

from services.shared.telemetry.health import Health, HealthMetrics
from services.shared.telemetry.tracing import NoTracing, Tracing


def _registry() -> CollectorRegistry:
    """Empty but for what the process uses: process_cpu_seconds_total, memory, open files."""
    disable_created_metrics()  # type: ignore[no-untyped-call]  # a series more of each metric, which nobody looks at
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    return registry


@dataclass(frozen=True, slots=True)
class Telemetry:
    """Where a service registers its metrics and its health checks, and gets its tracer."""

    registry: CollectorRegistry = field(default_factory=_registry)
    health: Health = field(default_factory=Health)
    tracing: Tracing = field(default_factory=NoTracing)

    def __post_init__(self) -> None:
        HealthMetrics(self.registry).show(self.health)
