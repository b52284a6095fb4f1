"""Defines the searcher's dashboard: quality, index versions, latency, memory."""

from __future__ import annotations

from typing import Final

from grafana_foundation_sdk.builders.dashboard import Dashboard

from tools.dashboards.colors import OUTCOMES, SHARES, STAGES
from tools.dashboards.frame import frame, row
from tools.dashboards.panels import (
    BAD,
    NONE_WANTED,
    AnyPanel,
    live_recall_now,
    number,
    rising,
    rows,
    timeseries,
)
from tools.dashboards.queries import (
    Query,
    live_recall,
    mean,
    of_service,
    percentiles,
    quantile,
    rate,
    rises,
    search_threads_busy,
    select,
    total,
)

_QUERIES: Final = "simile_searcher_queries_total"
_STAGE: Final = "simile_searcher_stage_seconds"
_ITEMS: Final = "simile_searcher_index_items"


def searcher() -> Dashboard:
    """Return the searcher's dashboard."""
    board = frame(
        "simile-searcher",
        "Simile / Searcher",
        "Are answers right, which index version gives them, how fast, in how much memory?",
    )
    row(board, "Are answers right, and quick?", *_headline())
    row(board, "Recall and time", *_quality())
    row(board, "Index versions in use", *_versions())
    row(board, "Replicas", *_replicas())
    return board


def _headline() -> list[AnyPanel]:
    return [
        number(
            "Queries",
            "Queries answered a second.",
            Query(total(rate(_QUERIES))),
            unit="reqps",
            span=6,
        ),
        number(
            "Search, p99",
            "99 of 100 searches take less than this.",
            Query(quantile(0.99, _STAGE, 'stage="search"')),
            unit="s",
            span=6,
            steps=rising(0.05, 0.25),
        ),
        live_recall_now(span=6),
        number(
            "Refused versions",
            "Active versions that failed a check; the searcher answers from the version before.",
            Query(f"{total(select('simile_searcher_index_refused'))} or vector(0)"),
            unit="none",
            span=6,
            steps=NONE_WANTED,
        ),
    ]


def _quality() -> list[AnyPanel]:
    return [
        timeseries(
            "Recall",
            "Live: the share of true neighbours in answers. Measured: the recall at build. "
            "Target: the recall that the build had to reach.",
            Query(live_recall("15m"), "{{collection}} live"),
            Query(
                f"min by (collection) ({select('simile_searcher_index_recall')})",
                "{{collection}} measured",
            ),
            Query(
                f"max by (collection) ({select('simile_searcher_index_recall_target')})",
                "{{collection}} target",
            ),
            unit="percentunit",
            lowest=None,
            highest=1,
        ),
        timeseries(
            "Search time",
            "Time of a query in the index: half, 9 of 10 and 99 of 100 are faster.",
            *percentiles(_STAGE, 'stage="search"'),
            unit="s",
            colors=SHARES,
        ),
        timeseries(
            "Mean time by stage",
            "Waiting in simile.search, searching, re-ranking by full vectors, sending the answers.",
            Query(mean(_STAGE, by=("stage",)), "{{stage}}"),
            unit="s",
            stacked=True,
            colors=STAGES,
        ),
    ]


def _versions() -> list[AnyPanel]:
    return [
        rows(
            "Index versions",
            "The version of each searcher. All rows of a collection should name the same version.",
            Query(total(select(_ITEMS), "pod", "collection", "index_version", "method")),
            columns={
                "pod": "Pod",
                "collection": "Collection",
                "index_version": "Version",
                "method": "Method",
                "Value": "Items",
            },
            span=12,
        ),
        timeseries(
            "Searchers by version",
            "How searchers follow a new version: the old one's line goes down, the new one's up. "
            "Refused: searchers that keep the version before since a check failed.",
            Query(f"count by (index_version) ({select(_ITEMS)})", "{{index_version}}"),
            Query(total(select("simile_searcher_index_refused")), "refused"),
            unit="none",
            span=6,
            decimals=0,
            colors={"refused": BAD},
        ),
        timeseries(
            "Age of the index",
            "Time since the open version of each collection was built.",
            Query(
                "time() - max by (collection) "
                f"({select('simile_searcher_index_created_timestamp_seconds')})",
                "{{collection}}",
            ),
            unit="s",
            span=6,
        ),
    ]


def _replicas() -> list[AnyPanel]:
    resident = of_service(select("process_resident_memory_bytes"), "searcher")
    return [
        timeseries(
            "Busy by searcher",
            "Each searcher's share of its threads in use.",
            Query(search_threads_busy("pod"), "{{pod}}"),
            unit="percentunit",
            highest=1,
            span=6,
        ),
        timeseries(
            "Memory",
            "Resident memory of each searcher, mapped index files in use included, and the size of "
            "those files.",
            Query(total(resident, "pod"), "{{pod}}"),
            Query(
                "sum(max by (namespace, release, collection) "
                f"({select('simile_searcher_index_bytes')}))",
                "index files",
            ),
            unit="bytes",
            span=6,
        ),
        timeseries(
            "Queries by outcome",
            "Outcomes of searches: ok, or the code of an error.",
            Query(total(rate(_QUERIES), "code"), "{{code}}"),
            unit="reqps",
            stacked=True,
            span=6,
            colors=OUTCOMES,
        ),
        timeseries(
            "Failures",
            "Queries past their deadline, redelivered after a searcher died, or returned to the "
            "queue because the broker took no answers; answers without a caller; messages in an "
            "unknown format.",
            *rises(
                "searcher", "expired", "redelivered", "given_back", "unanswerable", "undecodable"
            ),
            unit="suffix: /s",
            span=6,
        ),
    ]
