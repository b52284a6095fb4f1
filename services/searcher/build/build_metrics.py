"""Exports a build's progress as metrics."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Gauge

from services.searcher.progress import Progress


class BuildMetrics:
    """The progress of this process's builds; the values stay after a build ends."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.started = Gauge(
            "simile_index_build_started_timestamp_seconds",
            "Start of the last build, in seconds since the Unix epoch.",
            ["collection"],
            registry=registry,
        )
        self.stage = Gauge(
            "simile_index_build_stage",
            "1 for the current stage of the build, 0 for earlier ones.",
            ["collection", "stage"],
            registry=registry,
        )
        self.done = Gauge(
            "simile_index_build_done_units",
            "Finished units of the stage: images, or another unit of the stage.",
            ["collection", "stage"],
            registry=registry,
        )
        self.expected = Gauge(
            "simile_index_build_expected_units",
            "Units of the stage; absent if the number is unknown.",
            ["collection", "stage"],
            registry=registry,
        )
        self.failed = Gauge(
            "simile_index_build_failed_images",
            "Images that could not be used and are left out.",
            ["collection"],
            registry=registry,
        )


class MeasuredProgress:
    """Shows a build's progress in metrics, and passes it on."""

    def __init__(self, collection: str, metrics: BuildMetrics, progress: Progress) -> None:
        self._collection = collection
        self._metrics = metrics
        self._progress = progress
        self._stage: str | None = None
        self._failed = metrics.failed.labels(collection)

    def begin(self, stage: str, total: int | None, unit: str = "images") -> None:
        """Reset the counts of the stage; the first stage of a build marks its start."""
        metrics, labels = self._metrics, (self._collection, stage)
        if self._stage is None:
            metrics.started.labels(self._collection).set_to_current_time()
        else:
            metrics.stage.labels(self._collection, self._stage).set(0)
        self._stage = stage
        metrics.stage.labels(*labels).set(1)
        metrics.done.labels(*labels).set(0)
        if total is None:
            metrics.expected.remove(*labels)
        else:
            metrics.expected.labels(*labels).set(total)
        self._progress.begin(stage, total, unit)

    def advance(self, count: int = 1, *, failed: bool = False) -> None:
        """Add to the counts."""
        if self._stage is not None:
            self._metrics.done.labels(self._collection, self._stage).inc(count)
        if failed:
            self._failed.inc(count)
        self._progress.advance(count, failed=failed)

    def end(self) -> None:
        """Mark the build as ended, successful or not."""
        if self._stage is not None:
            self._metrics.stage.labels(self._collection, self._stage).set(0)
        self._stage = None
