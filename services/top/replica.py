"""Summarizes a service in one process: its work, how busy it is, its readiness."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final, Literal
from urllib.parse import urlsplit

from services.shared.telemetry import metric_names
from services.shared.telemetry.samples import Histogram, Samples, Wanted
from services.top.scrape import Scrape

State = Literal["ready", "not ready", "away"]


@dataclass(frozen=True, slots=True)
class Change:
    """Compares two scrapes of a process.

    Attributes:
        now: the metrics of the second scrape.
        risen: the rise since the first one; None without a first one.
        elapsed_seconds: between the scrapes.
        restarted: whether the process was restarted between them.
    """

    now: Samples
    risen: Samples | None = None
    elapsed_seconds: float = 0.0
    restarted: bool = False

    @classmethod
    def between(cls, before: Scrape | None, after: Scrape) -> Change | None:
        """Compare two scrapes; return None where the process does not answer now."""
        if after.samples is None:
            return None
        if before is None or before.samples is None:
            return cls(after.samples)
        return cls(
            after.samples,
            after.samples.since(before.samples),
            after.taken_seconds - before.taken_seconds,
            after.samples.restarted_since(before.samples),
        )

    def rate(self, name: str, **wanted: Wanted) -> float | None:
        """Return the rise per second."""
        if self.risen is None:
            return None
        return self.risen.total(name, **wanted) / self.elapsed_seconds

    def histogram(self, name: str, **wanted: Wanted) -> Histogram | None:
        """Return the observations between the scrapes."""
        return None if self.risen is None else self.risen.histogram(name, **wanted)


@dataclass(frozen=True, slots=True)
class Work:
    """Holds the work of a service; unknown numbers are None.

    Attributes:
        per_second: queries, or images of an embedder.
        seconds: the duration of the whole request, the model or the search.
        busy: 0..1, of the queries that may be in flight, or of the workers or threads.
        in_hand: queries, images or batches in flight.
    """

    per_second: float | None = None
    seconds: Histogram | None = None
    busy: float | None = None
    in_hand: float | None = None


@dataclass(frozen=True, slots=True)
class Replica:
    """Holds a row of the table of replicas.

    Attributes:
        cpu: processors in use; like memory_bytes, only in the first row of a process.
    """

    address: str
    service: str
    state: State
    reason: str = ""
    version: str = ""
    restarted: bool = False
    work: Work = Work()
    cpu: float | None = None
    memory_bytes: float | None = None


def replicas_of(scrape: Scrape, change: Change | None) -> Iterator[Replica]:
    """Yield a row for each service of the process; a single one where it does not answer."""
    address = urlsplit(scrape.url).netloc or scrape.url
    if change is None:
        yield Replica(address, "?", "away", scrape.away)
        return
    services = metric_names.services_of(change.now)
    for place, service in enumerate(services or ["?"]):
        first = place == 0
        yield Replica(
            address,
            service,
            "not ready" if scrape.failing else "ready",
            "; ".join(f"{name}: {reason}" for name, reason in scrape.failing.items()),
            _version(change.now),
            change.restarted,
            _WORK[service](change) if services else Work(),
            change.rate("process_cpu_seconds_total") if first else None,
            change.now.one("process_resident_memory_bytes") if first else None,
        )


def _version(samples: Samples) -> str:
    return next((labels["version"] for labels, _ in samples.labels(metric_names.PROCESS_INFO)), "")


def _of_upload(change: Change) -> Work:
    in_flight = change.now.one(metric_names.IN_FLIGHT)
    return Work(
        change.rate(metric_names.REQUESTS, route=metric_names.QUERY_ROUTES),
        change.histogram(metric_names.REQUEST_SECONDS, route=metric_names.QUERY_ROUTES),
        _share(in_flight, change.now.one(metric_names.IN_FLIGHT_LIMIT)),
        in_flight,
    )


def _of_embedder(change: Change) -> Work:
    return Work(
        change.rate("simile_embedder_images_total"),
        change.histogram("simile_embedder_stage_seconds", stage="model"),
        _share(
            change.rate("simile_embedder_worker_busy_seconds_total"),
            change.now.one("simile_embedder_model_workers"),
        ),
        change.now.one("simile_embedder_in_hand_images"),
    )


def _of_searcher(change: Change) -> Work:
    return Work(
        change.rate("simile_searcher_queries_total"),
        change.histogram("simile_searcher_stage_seconds", stage="search"),
        _share(
            change.rate("simile_searcher_busy_seconds_total"),
            change.now.one("simile_searcher_threads"),
        ),
        change.now.one("simile_searcher_in_hand_batches"),
    )


def _share(used: float | None, there: float | None) -> float | None:
    return None if used is None or not there else used / there


_WORK: Final[Mapping[str, Callable[[Change], Work]]] = {
    "upload": _of_upload,
    "embedder": _of_embedder,
    "searcher": _of_searcher,
}
