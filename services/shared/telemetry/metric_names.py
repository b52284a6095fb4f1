"""Names the metrics that `simile top` and `simile bench` read, and computes the main figures."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Final, get_args

from services.shared.telemetry.samples import Histogram, Samples
from services.shared.telemetry.stopwatch import QueryStage

QUERY_ROUTES: Final = frozenset(
    {
        "/v1/search",
        "/v1/search/batch",
        "/v1/embed",
        "/v1/items/{collection}/{item_id}/similar",
    }
)
"""Routes of queries; images and pages are not among them."""

REQUESTS: Final = "simile_upload_requests_total"
REQUEST_SECONDS: Final = "simile_upload_request_seconds"
STAGE_SECONDS: Final = "simile_upload_stage_seconds"
IN_FLIGHT: Final = "simile_upload_in_flight_queries"
IN_FLIGHT_LIMIT: Final = "simile_upload_in_flight_limit_queries"
CANARIES: Final = "simile_upload_canary_total"
CANARY_SUCCESS: Final = "simile_upload_canary_success_timestamp_seconds"
QUEUE_MESSAGES: Final = "simile_broker_queue_messages"
LIVE_RECALL_EXPECTED: Final = "simile_searcher_live_recall_expected_total"
LIVE_RECALL_FOUND: Final = "simile_searcher_live_recall_found_total"
PROCESS_INFO: Final = "simile_process_info"

SERVICES: Final = ("upload", "embedder", "searcher")

STAGES: Final[tuple[str, ...]] = get_args(QueryStage)


def services_of(samples: Samples) -> Sequence[str]:
    """Return the services that the process runs: one, or all of them in a `simile up`."""
    return [
        service
        for service in SERVICES
        if any(name.startswith(f"simile_{service}_") for name in samples.values)
    ]


def queries_by_code(risen: Samples) -> Mapping[str, float]:
    """Count the answered queries by code, the most frequent first."""
    counts = risen.by("code", REQUESTS, route=QUERY_ROUTES)
    return {code: counts[code] for code in sorted(counts, key=lambda code: (-counts[code], code))}


def query_seconds(risen: Samples) -> Histogram:
    """Return the durations of all queries, failed ones too."""
    return risen.histogram(REQUEST_SECONDS, route=QUERY_ROUTES)


def stage_seconds(risen: Samples) -> Mapping[str, Histogram]:
    """Return the durations of answered queries in each stage, in the order of the stages."""
    known = {labels["stage"] for labels, _ in risen.labels(f"{STAGE_SECONDS}_sum")}
    ordered = [stage for stage in STAGES if stage in known] + sorted(known - {*STAGES})
    found = {stage: risen.histogram(STAGE_SECONDS, stage=stage) for stage in ordered}
    return {stage: histogram for stage, histogram in found.items() if histogram.count}


def queue_messages(several: Iterable[Samples]) -> Mapping[str, int]:
    """Count waiting messages by queue: the maximum of all processes, which see the same queues."""
    most: dict[str, int] = {}
    for samples in several:
        for labels, value in samples.labels(QUEUE_MESSAGES):
            queue = labels["queue"]
            most[queue] = max(most.get(queue, 0), int(value))
    return dict(sorted(most.items()))
