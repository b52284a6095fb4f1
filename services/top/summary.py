"""Summarizes all processes from two scrapes of each."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from services.shared.telemetry import metric_names
from services.shared.telemetry.samples import Histogram, Samples, added
from services.top.replica import Change, Replica, replicas_of
from services.top.scrape import Scrape

SHARES: Final = (0.5, 0.9, 0.99)

TROUBLES: Final[Mapping[str, str]] = {
    "simile_upload_late_replies_total": "late replies",
    "simile_upload_undecodable_total": "undecodable at uploads",
    "simile_upload_expired_total": "given up by their callers",
    "simile_embedder_expired_total": "expired at embedders",
    "simile_searcher_expired_total": "expired at searchers",
    "simile_embedder_redelivered_total": "redelivered to embedders",
    "simile_searcher_redelivered_total": "redelivered to searchers",
    "simile_embedder_given_back_total": "given back by embedders",
    "simile_searcher_given_back_total": "given back by searchers",
    "simile_embedder_unanswerable_total": "unroutable results",
    "simile_searcher_unanswerable_total": "unroutable answers",
    "simile_embedder_quarantined_total": "quarantined",
    "simile_searcher_undecodable_total": "undecodable at searchers",
    "simile_embedder_model_faults_total": "model faults",
    "simile_searcher_refused_versions_total": "refused index versions",
    "simile_broker_reconnects_total": "reconnects to the broker",
}
"""Counters that should not rise, with their names on the screen."""


@dataclass(frozen=True, slots=True)
class Index:
    """Describes an open index version; recalls are 0..1, the live recall is of the interval."""

    collection: str
    version: str
    items: int
    searchers: int
    age_seconds: float | None = None
    recall: float | None = None
    live_recall: float | None = None


@dataclass(frozen=True, slots=True)
class Canary:
    """Holds the results of canaries.

    Attributes:
        success_age_seconds: since the last right answer; None before the first.
        failed_by_code: failures of the interval.
    """

    success_age_seconds: float | None = None
    failed_by_code: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Summary:
    """Holds everything on the screen.

    Attributes:
        measured: whether there were two scrapes, so that rates are known.
        per_second_by_code: queries per second by code.
        troubles: the rise per second of the counters in TROUBLES.
    """

    measured: bool
    per_second_by_code: Mapping[str, float]
    seconds: Histogram
    stages: Mapping[str, Histogram]
    in_flight: float
    in_flight_limit: float
    queues: Mapping[str, int]
    canary: Canary
    troubles: Mapping[str, float]
    replicas: Sequence[Replica]
    indexes: Sequence[Index]

    @property
    def per_second(self) -> float:
        """Queries per second with any code."""
        return sum(self.per_second_by_code.values())

    @property
    def answering(self) -> int:
        """The number of processes that answer, ready or not."""
        return len({one.address for one in self.replicas if one.state != "away"})

    @property
    def processes(self) -> int:
        """The number of scraped processes."""
        return len({one.address for one in self.replicas})

    def to_json(self) -> Mapping[str, Any]:
        """Return the summary as JSON values: seconds and bytes, null for unknown values."""
        return {
            "queries": {
                "per_second": self.per_second if self.measured else None,
                "per_second_by_code": self.per_second_by_code,
                "in_flight": self.in_flight,
                "in_flight_limit": self.in_flight_limit,
                **_seconds(self.seconds),
            },
            "stages": {stage: _seconds(one) for stage, one in self.stages.items()},
            "queues": self.queues,
            "canary": {
                "success_age_seconds": self.canary.success_age_seconds,
                "failed_by_code": self.canary.failed_by_code,
            },
            "troubles_per_second": self.troubles,
            "replicas": [_replica(one) for one in self.replicas],
            "indexes": [
                {name: getattr(one, name) for name in Index.__dataclass_fields__}
                for one in self.indexes
            ],
        }


def summary(
    before: Sequence[Scrape], after: Sequence[Scrape], clock: Callable[[], float] = time.time
) -> Summary:
    """Summarize two scrapes of the same addresses.

    Args:
        before: the first scrapes; may be empty.
        after: the second scrapes.
        clock: returns the Unix time.
    """
    then = {scrape.url: scrape for scrape in before}
    changes = {scrape.url: Change.between(then.get(scrape.url), scrape) for scrape in after}
    there = [change for change in changes.values() if change is not None]
    now = [change.now for change in there]
    risen = added(change.risen for change in there if change.risen is not None)
    return Summary(
        measured=any(change.risen is not None for change in there),
        per_second_by_code=_added_rates(there, metric_names.queries_by_code),
        seconds=metric_names.query_seconds(risen),
        stages=metric_names.stage_seconds(risen),
        in_flight=sum(one.total(metric_names.IN_FLIGHT) for one in now),
        in_flight_limit=sum(one.total(metric_names.IN_FLIGHT_LIMIT) for one in now),
        queues=metric_names.queue_messages(now),
        canary=_canary(now, risen, clock()),
        troubles=_added_rates(there, _troubles),
        replicas=[one for scrape in after for one in replicas_of(scrape, changes[scrape.url])],
        indexes=_indexes(now, risen, clock()),
    )


def _added_rates(
    changes: Sequence[Change], count: Callable[[Samples], Mapping[str, float]]
) -> Mapping[str, float]:
    """Add up the rises per second, each by its process's own interval; leave out zeros."""
    rates: dict[str, float] = {}
    for change in changes:
        if change.risen is not None:
            for name, rise in count(change.risen).items():
                rates[name] = rates.get(name, 0.0) + rise / change.elapsed_seconds
    ordered = sorted(rates, key=lambda name: -rates[name])
    return {name: rates[name] for name in ordered if rates[name]}


def _troubles(risen: Samples) -> Mapping[str, float]:
    return {words: risen.total(name) for name, words in TROUBLES.items()}


def _canary(now: Sequence[Samples], risen: Samples, at: float) -> Canary:
    last = max((one.total(metric_names.CANARY_SUCCESS) for one in now), default=0.0)
    by_code = risen.by("code", metric_names.CANARIES)
    failed = {code: count for code, count in by_code.items() if count and code != "ok"}
    return Canary(at - last if last else None, failed)


def _indexes(now: Sequence[Samples], risen: Samples, at: float) -> Sequence[Index]:
    found: dict[tuple[str, str], Index] = {}
    found_live = risen.by("collection", "simile_searcher_live_recall_found_total")
    expected_live = risen.by("collection", "simile_searcher_live_recall_expected_total")
    for samples in now:
        recall = samples.by("collection", "simile_searcher_index_recall")
        created = samples.by("collection", "simile_searcher_index_created_timestamp_seconds")
        for labels, items in samples.labels("simile_searcher_index_items"):
            collection, version = labels["collection"], labels["index_version"]
            known = found.get((collection, version))
            expected = expected_live.get(collection)
            found[collection, version] = Index(
                collection,
                version,
                int(items),
                1 if known is None else known.searchers + 1,
                at - created[collection] if collection in created else None,
                recall.get(collection),
                found_live.get(collection, 0.0) / expected if expected else None,
            )
    return [found[key] for key in sorted(found)]


def _seconds(histogram: Histogram | None) -> Mapping[str, float | None]:
    known = histogram if histogram is not None and histogram.count else None
    times = {"mean_seconds": None if known is None else known.mean}
    for share in SHARES:
        times[f"p{share * 100:g}_seconds"] = None if known is None else known.quantile(share)
    return times


def _replica(one: Replica) -> Mapping[str, Any]:
    return {
        "address": one.address,
        "service": one.service,
        "state": one.state,
        "reason": one.reason,
        "version": one.version,
        "restarted": one.restarted,
        "per_second": one.work.per_second,
        "busy": one.work.busy,
        "in_hand": one.work.in_hand,
        **_seconds(one.work.seconds),
        "cpu": one.cpu,
        "memory_bytes": one.memory_bytes,
    }
