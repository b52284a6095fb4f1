"""The searcher's metrics."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from services.shared.collection import Manifest
from services.shared.telemetry.metrics import BATCH_BUCKETS, DURATION_BUCKETS


class SearcherMetrics:
    """What a searcher counts and measures."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.queries = Counter(
            "simile_searcher_queries_total",
            "Queries by outcome: ok or an error's code.",
            ["code"],
            registry=registry,
        )
        self.search_seconds = Histogram(
            "simile_searcher_search_seconds",
            "Time to find the neighbours of one query.",
            buckets=DURATION_BUCKETS,
            registry=registry,
        )
        self.batch_items = Histogram(
            "simile_searcher_batch_items",
            "Queries taken from the queue together.",
            buckets=BATCH_BUCKETS,
            registry=registry,
        )
        self.expired = Counter(
            "simile_searcher_expired_total",
            "Queries dropped before the search: nobody waited any more.",
            registry=registry,
        )
        self.unanswerable = Counter(
            "simile_searcher_unanswerable_total",
            "Answers whose reply queue was gone.",
            registry=registry,
        )
        self.undecodable = Counter(
            "simile_searcher_undecodable_total",
            "Messages that could not be decoded and went to the dead-letter queue.",
            registry=registry,
        )
        self.refused = Counter(
            "simile_searcher_refused_versions_total",
            "Index versions refused because a check failed.",
            ["collection", "code"],
            registry=registry,
        )
        self._index = Gauge(
            "simile_searcher_index_items",
            "Items of the open index version.",
            ["collection", "index_version", "model_id"],
            registry=registry,
        )
        self._shown: dict[str, tuple[str, str, str]] = {}

    def show_index(self, manifest: Manifest) -> None:
        """Show the version that is open now, in place of the one before."""
        self.forget_index(manifest.collection)
        labels = (manifest.collection, manifest.version, manifest.model_id)
        self._shown[manifest.collection] = labels
        self._index.labels(*labels).set(manifest.count)

    def forget_index(self, collection: str) -> None:
        """Show no version of the collection."""
        labels = self._shown.pop(collection, None)
        if labels is not None:
            self._index.remove(*labels)
