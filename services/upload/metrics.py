"""The upload service's metrics."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from services.shared.telemetry.metrics import DURATION_BUCKETS, SIZE_BUCKETS


class UploadMetrics:
    """What the HTTP front counts and measures."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.requests = Counter(
            "simile_upload_requests_total",
            "Requests by route, status and code (ok, or an error's).",
            ["route", "status", "code"],
            registry=registry,
        )
        self.request_seconds = Histogram(
            "simile_upload_request_seconds",
            "Time from a request's headers to its answer.",
            ["route"],
            buckets=DURATION_BUCKETS,
            registry=registry,
        )
        self.in_flight = Gauge(
            "simile_upload_in_flight_queries",
            "Queries being answered now.",
            registry=registry,
        )
        self.image_bytes = Histogram(
            "simile_upload_image_bytes",
            "Size of the images received.",
            buckets=SIZE_BUCKETS,
            registry=registry,
        )
        self.stage_seconds = Histogram(
            "simile_upload_stage_seconds",
            "Time a query spent in each stage: decode, wait, model, search, messaging.",
            ["stage"],
            buckets=DURATION_BUCKETS,
            registry=registry,
        )
        self.late_replies = Counter(
            "simile_upload_late_replies_total",
            "Replies that came when nobody waited any more.",
            registry=registry,
        )
        self.thumbnails = Counter(
            "simile_upload_thumbnails_total",
            "Thumbnails served, by where they came from: cache or made.",
            ["source"],
            registry=registry,
        )
