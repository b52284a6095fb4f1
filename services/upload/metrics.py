"""The upload service's metrics."""

from __future__ import annotations

import itertools
from collections.abc import Mapping

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from services.shared.canary import CanaryMetrics
from services.shared.telemetry.durations import Durations
from services.shared.telemetry.metrics import SIZE_BUCKETS, Children


class UploadMetrics:
    """Defines the metrics of the upload service."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._add_requests_metrics(registry)
        self._add_queries_metrics(registry)
        self._add_images_metrics(registry)

    def count(self, route: str, status: int, code: str, seconds: float, trace: str) -> None:
        """Count an answer; trace: the id of its trace, empty without one."""
        self._requests.of(route, str(status), code).inc()
        self._request_seconds.of(route).observe(seconds, trace)

    def count_admission(self, code: str) -> None:
        """Count a query that was admitted (ok), or refused."""
        if code == "ok":
            self._admitted.inc()
        else:
            self._refused.of(code).inc()

    def observe_stages(self, seconds: Mapping[str, float], trace: str) -> None:
        """Count a query's time in each stage; `total` is not a stage. trace: as in `count`."""
        for stage, spent in seconds.items():
            if stage != "total":
                self._stages.of(stage).observe(spent, trace)

    def _add_requests_metrics(self, registry: CollectorRegistry) -> None:
        requests = Counter(
            "simile_upload_requests_total",
            "Requests by route, status and code (ok, or that of an error).",
            ["route", "status", "code"],
            registry=registry,
        )
        self._requests = Children(requests)
        self._request_seconds = Durations(
            "simile_upload_request_seconds",
            "Time from a request's headers to its answer.",
            ["route"],
            registry,
        )
        self._stages = Durations(
            "simile_upload_stage_seconds",
            "Time of an answered query in each stage: receive, sniff (lookup for an item), "
            "publish, embed_queue, decode, batch_wait, model, search_queue, search, rerank, "
            "messaging, reply. The stages add up to the query's time.",
            ["stage"],
            registry,
        )
        self.canary = CanaryMetrics("upload", registry)
        self.key_uses = Counter(
            "simile_upload_key_uses_total",
            "Requests by the name of their API key; shows whether an old key is still used.",
            ["key"],
            registry=registry,
        )
        self.api_keys = Gauge(
            "simile_upload_api_keys",
            "Valid API keys.",
            registry=registry,
        )
        self.api_key_faults = Gauge(
            "simile_upload_api_key_faults",
            "Unreadable lines of the file of API keys; 1 if the file is unreadable or has no key.",
            registry=registry,
        )
        self.reloads = Counter(
            "simile_upload_reloads_total",
            "Changed files read while running, by what (keys, certificate) and result (ok or "
            "refused). After refused the previous certificate stays in use, and of the keys only "
            "those of readable lines.",
            ["what", "result"],
            registry=registry,
        )
        # Created at 0: `increase` does not see the first event of a new counter.
        for what, result in itertools.product(("keys", "certificate"), ("ok", "refused")):
            self.reloads.labels(what, result)

    def _add_queries_metrics(self, registry: CollectorRegistry) -> None:
        self._admitted = Counter(
            "simile_upload_admitted_total",
            "Admitted queries.",
            registry=registry,
        )
        refused = Counter(
            "simile_upload_refused_total",
            "Queries refused before any work, by code.",
            ["code"],
            registry=registry,
        )
        self._refused = Children(refused)
        self.held_refusals = Counter(
            "simile_upload_held_refusals_total",
            "Answers with Retry-After that were delayed, by at most a second.",
            registry=registry,
        )
        self.in_flight = Gauge(
            "simile_upload_in_flight_queries",
            "Queries being answered now.",
            registry=registry,
        )
        self.in_flight_limit = Gauge(
            "simile_upload_in_flight_limit_queries",
            "Maximum number of queries by image in flight, so that all are answered in time; "
            "queries that need no embedder have a limit of their own.",
            registry=registry,
        )
        self.waiting = Gauge(
            "simile_upload_waiting_queries",
            "Queries with a complete image, such as those of a batch, that wait for a slot.",
            registry=registry,
        )
        self.waiting_reads = Gauge(
            "simile_upload_waiting_reads",
            "Requests for items, images and listings that wait for a slot.",
            registry=registry,
        )
        self.arriving_bodies = Gauge(
            "simile_upload_arriving_bodies",
            "Request bodies that are arriving.",
            registry=registry,
        )
        self.held_bytes = Gauge(
            "simile_upload_held_bytes",
            "Bytes of request bodies in memory, from their arrival to the answer.",
            registry=registry,
        )
        self._add_replies_metrics(registry)

    def _add_replies_metrics(self, registry: CollectorRegistry) -> None:
        self.late_replies = Counter(
            "simile_upload_late_replies_total",
            "Replies that arrived after their caller stopped waiting.",
            registry=registry,
        )
        self.undecodable = Counter(
            "simile_upload_undecodable_total",
            "Messages on a reply queue that could not be decoded and were dropped.",
            registry=registry,
        )
        self.expired = Counter(
            "simile_upload_expired_total",
            "Queries dropped after their caller's deadline, by the stage that was saved.",
            ["before"],
            registry=registry,
        )

    def _add_images_metrics(self, registry: CollectorRegistry) -> None:
        self.image_bytes = Histogram(
            "simile_upload_image_bytes",
            "Size of the images received.",
            buckets=SIZE_BUCKETS,
            registry=registry,
        )
        self.batch_images = Counter(
            "simile_upload_batch_images_total",
            "Images of batches, by code (ok, or that of an error).",
            ["code"],
            registry=registry,
        )
        self.embeddings = Counter(
            "simile_upload_embedding_cache_total",
            "Look-ups of query images in the cache of vectors: hit, miss, or stale (of another "
            "model than the index).",
            ["result"],
            registry=registry,
        )
        self.embedding_cache_bytes = Gauge(
            "simile_upload_embedding_cache_bytes",
            "Bytes of the cached vectors.",
            registry=registry,
        )
        self.thumbnails = Counter(
            "simile_upload_thumbnails_total",
            "Thumbnails served, by source: cache or made.",
            ["source"],
            registry=registry,
        )
