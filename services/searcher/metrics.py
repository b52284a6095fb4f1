"""The searcher's metrics."""

from __future__ import annotations

from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from services.shared.canary import CanaryMetrics
from services.shared.errors import IndexCorrupt
from services.shared.telemetry.durations import Durations
from services.shared.telemetry.metrics import BATCH_BUCKETS, Children
from services.shared.telemetry.stopwatch import Stopwatch
from services.shared.volume.manifest import Manifest

_DISTANCE_BUCKETS: Final = (0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0, 1.2, 1.4, 2.0)
_OPEN_BUCKETS: Final = (0.01, 0.1, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)


class SearcherMetrics:
    """Counts and measures the work of a searcher."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._add_queries(registry)
        self._add_losses(registry)
        self._add_recall(registry)
        self._add_versions(registry)
        self._add_open_index(registry)

    def show_index(self, manifest: Manifest) -> None:
        """Show the version that is open now instead of the previous one."""
        self.forget_index(manifest.collection)
        self._begin(manifest.collection)
        labels = (
            manifest.collection, manifest.version, manifest.model_id, manifest.plan.method,
        )  # fmt: skip
        self._shown[manifest.collection] = labels
        self._items.labels(*labels).set(manifest.count)
        for gauge, value in (
            (self._recall, manifest.recall),
            (self._recall_target, manifest.recall_target),
            (self._created, manifest.created_unix_ms / 1000),
            (self._bytes, manifest.bytes),
        ):
            gauge.labels(manifest.collection).set(value)

    def forget_index(self, collection: str) -> None:
        """Show no version of the collection any more."""
        labels = self._shown.pop(collection, None)
        if labels is not None:
            self._items.remove(*labels)
            for gauge in (self._recall, self._recall_target, self._created, self._bytes):
                gauge.remove(collection)

    def count(self, code: str, watch: Stopwatch, trace: str) -> None:
        """Count an answered query; trace: the id of its trace, or empty."""
        self._queries.of(code).inc()
        self._stages.observe_stages(watch.stages, trace_id=trace)

    def _begin(self, collection: str) -> None:
        """Create the collection's counters at 0, or `increase` misses the first event."""
        self.refused.labels(collection, IndexCorrupt.code)
        for counter in (self.swaps, self.live_expected, self.live_found):
            counter.labels(collection)

    def _add_queries(self, registry: CollectorRegistry) -> None:
        queries = Counter(
            "simile_searcher_queries_total",
            "Queries by outcome: ok or an error's code.",
            ["code"],
            registry=registry,
        )
        self._queries = Children(queries)
        self._stages = Durations(
            "simile_searcher_stage_seconds",
            "Time of a query in each stage: search_queue, search and rerank (both of its batch), "
            "publish.",
            ["stage"],
            registry,
        )
        self.busy = Counter(
            "simile_searcher_busy_seconds_total",
            "Time spent searching, in threads or, for quick searches, in the event loop; divide "
            "by the number of threads for their utilization.",
            registry=registry,
        )
        self.threads = Gauge(
            "simile_searcher_threads",
            "Searches that can run at the same time.",
            registry=registry,
        )
        self.in_hand = Gauge(
            "simile_searcher_in_hand_batches",
            "Batches of queries received and not answered yet.",
            registry=registry,
        )
        self.batch_items = Histogram(
            "simile_searcher_batch_items",
            "Queries received together.",
            buckets=BATCH_BUCKETS,
            registry=registry,
        )
        self.canary = CanaryMetrics("searcher", registry)

    def _add_losses(self, registry: CollectorRegistry) -> None:
        self.redelivered = Counter(
            "simile_searcher_redelivered_total",
            "Messages that another searcher had received and not answered.",
            registry=registry,
        )
        self.given_back = Counter(
            "simile_searcher_given_back_total",
            "Messages returned to the queue, since the broker did not accept their replies.",
            registry=registry,
        )
        self.passed_on = Counter(
            "simile_searcher_passed_on_total",
            "Queries returned to the queue for other searchers: this one lacks their collection.",
            registry=registry,
        )
        self.expired = Counter(
            "simile_searcher_expired_total",
            "Queries dropped before the search: their deadline was over.",
            registry=registry,
        )
        self.unanswerable = Counter(
            "simile_searcher_unanswerable_total",
            "Replies whose reply queue no longer existed.",
            registry=registry,
        )
        self.undecodable = Counter(
            "simile_searcher_undecodable_total",
            "Messages that could not be decoded; those of the query queue are quarantined.",
            registry=registry,
        )

    def _add_recall(self, registry: CollectorRegistry) -> None:
        self.live_expected = Counter(
            "simile_searcher_live_recall_expected_total",
            "True neighbours of sampled queries, found by exact search.",
            ["collection"],
            registry=registry,
        )
        self.live_found = Counter(
            "simile_searcher_live_recall_found_total",
            "True neighbours that the answer held; divided by expected, the live recall.",
            ["collection"],
            registry=registry,
        )
        distance = Histogram(
            "simile_searcher_neighbor_distance",
            "Angular distance (0..2) of an answer's nearest and farthest neighbour.",
            ["collection", "rank"],
            buckets=_DISTANCE_BUCKETS,
            registry=registry,
        )
        self.distance = Children(distance)

    def _add_versions(self, registry: CollectorRegistry) -> None:
        self.swaps = Counter(
            "simile_searcher_index_swaps_total",
            "Index versions opened instead of another.",
            ["collection"],
            registry=registry,
        )
        self.open_seconds = Histogram(
            "simile_searcher_index_open_seconds",
            "Time to verify, map and test an index version.",
            buckets=_OPEN_BUCKETS,
            registry=registry,
        )
        self.refused = Counter(
            "simile_searcher_refused_versions_total",
            "Index versions refused because a check failed.",
            ["collection", "code"],
            registry=registry,
        )
        self.index_refused = Gauge(
            "simile_searcher_index_refused",
            "1 while the collection's active version is refused here.",
            ["collection"],
            registry=registry,
        )

    def _add_open_index(self, registry: CollectorRegistry) -> None:
        self._items = Gauge(
            "simile_searcher_index_items",
            "Items of the open index version.",
            ["collection", "index_version", "model_id", "method"],
            registry=registry,
        )
        self._recall = Gauge(
            "simile_searcher_index_recall",
            "Recall@10 of the open index version, as measured when it was built.",
            ["collection"],
            registry=registry,
        )
        self._recall_target = Gauge(
            "simile_searcher_index_recall_target",
            "Target recall@10 of the build of the open index version.",
            ["collection"],
            registry=registry,
        )
        self._created = Gauge(
            "simile_searcher_index_created_timestamp_seconds",
            "Time when the open index version was built, in seconds since the Unix epoch.",
            ["collection"],
            registry=registry,
        )
        self._bytes = Gauge(
            "simile_searcher_index_bytes",
            "Size of the files of the open index version, all mapped.",
            ["collection"],
            registry=registry,
        )
        self._shown: dict[str, tuple[str, ...]] = {}
