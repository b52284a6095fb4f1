"""What a process tells about itself: logs, metrics, health."""

from __future__ import annotations

from dataclasses import dataclass, field

from prometheus_client import CollectorRegistry

from services.shared.telemetry.health import Health


@dataclass(frozen=True, slots=True)
class Telemetry:
    """Where a service registers its metrics and its health checks."""

    registry: CollectorRegistry = field(default_factory=CollectorRegistry)
    health: Health = field(default_factory=Health)
