"""Defines buckets and helpers for the metrics of all services."""

from __future__ import annotations

from importlib import metadata
from typing import Final, Generic, TypeVar

from prometheus_client import CollectorRegistry, Gauge
from prometheus_client.metrics import MetricWrapperBase

DURATION_BUCKETS: Final = (
    0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5,
    1.0, 2.5, 5.0, 10.0, 30.0,
)  # fmt: skip
"""Seconds: reading an image's header takes a tenth of a millisecond, a deadline is some seconds."""

SIZE_BUCKETS: Final = tuple(float(2**power) for power in range(10, 25, 2))
"""Bytes, 1 KiB to 16 MiB."""

BATCH_BUCKETS: Final = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0)
"""Items."""

_Metric = TypeVar("_Metric", bound=MetricWrapperBase)


class Children(Generic[_Metric]):
    """Caches a metric's children by label values, since `labels()` costs more than counting."""

    def __init__(self, metric: _Metric) -> None:
        self._metric = metric
        self._known: dict[tuple[str, ...], _Metric] = {}

    def of(self, *values: str) -> _Metric:
        """Return the child of these values, which are in the order of the labels."""
        known = self._known.get(values)
        if known is None:
            known = self._known[values] = self._metric.labels(*values)
        return known


class ReleaseMetrics:
    """Exports which service a process runs, and which version of Simile."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.info = Gauge(
            "simile_process_info",
            "1, with the service of this process (up: all services) and the version of Simile.",
            ["service", "version"],
            registry=registry,
        )

    def show(self, service: str) -> None:
        """Export the service of this process."""
        self.info.labels(service, metadata.version("simile-search")).set(1)
