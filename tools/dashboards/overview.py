"""Defines the overview: health, latency, its stages, saturation, changes."""

from __future__ import annotations

from typing import Final

from grafana_foundation_sdk.builders.dashboard import Dashboard

from tools.dashboards.colors import OUTCOMES, SERVICES, SHARES, STAGES
from tools.dashboards.frame import frame, row
from tools.dashboards.panels import (
    BAD,
    WARNING,
    AnyPanel,
    falling,
    lines_at,
    live_recall_now,
    number,
    rising,
    timeseries,
)
from tools.dashboards.queries import (
    FAILED,
    QUERIES,
    Query,
    canary,
    failing,
    model_workers_busy,
    percentiles,
    quantile,
    queue_depth,
    rate,
    search_threads_busy,
    select,
    slow,
    total,
)

_REQUESTS: Final = "simile_upload_requests_total"
_SECONDS: Final = "simile_upload_request_seconds"
_STAGE: Final = "simile_upload_stage_seconds"


def overview() -> Dashboard:
    """Return the overview, the dashboard to open first."""
    board = frame(
        "simile-overview",
        "Simile / Overview",
        "Is Simile healthy and fast, where does the time go, what is at its limit, what changed?",
    )
    row(board, "Health", *_health())
    row(board, "Traffic and failures", *_traffic())
    row(board, "Where does the time go?", *_time())
    row(board, "Saturation", *_saturation())
    return board


def _health() -> list[AnyPanel]:
    return [
        number(
            "Queries",
            "Queries a second: searches, batches, embeddings and “more like this”.",
            Query(total(rate(_REQUESTS, QUERIES))),
            unit="reqps",
        ),
        number(
            "Failed",
            "Share of queries that got a 5xx: refused, broken or too late. A caller's own mistakes "
            "(4xx) don't count. The objective is 0.5 %.",
            Query(failing()),
            unit="percentunit",
            steps=rising(0.005, 0.05),
        ),
        number(
            "p99 latency",
            "99 of 100 queries are answered within this time. The objective is a second.",
            Query(quantile(0.99, _SECONDS, QUERIES)),
            unit="s",
            steps=rising(0.5, 1),
        ),
        number(
            "Error budget left",
            "Remaining share of the failures that 30 days may have (0.5 % of queries). Below 0 the "
            "objective is missed.",
            Query(f"1 - ({failing('30d')}) / 0.005"),
            unit="percentunit",
            steps=falling(0, 0.25),
            now=True,
        ),
        live_recall_now(),
        number(
            "Canary",
            "Share of the test queries that found the image they asked by, through all queues, in "
            "the last 15 minutes.",
            Query(canary("15m")),
            unit="percentunit",
            steps=falling(0.5, 1),
        ),
    ]


def _traffic() -> list[AnyPanel]:
    return [
        timeseries(
            "Queries by outcome",
            "Outcomes of queries: ok, or the code of an error (docs/errors.md).",
            Query(total(rate(_REQUESTS, QUERIES), "code"), "{{code}}"),
            unit="reqps",
            stacked=True,
            colors=OUTCOMES,
        ),
        timeseries(
            "Failures by code",
            "Queries that got a 5xx, by code, and those refused at admission.",
            Query(total(rate(_REQUESTS, QUERIES, FAILED), "code"), "{{code}}"),
            Query(total(rate("simile_upload_refused_total"), "code"), "refused: {{code}}"),
            unit="reqps",
        ),
        timeseries(
            "Error budget burn",
            "How many times too fast the budget is spent, over the last hour: failures (0.5 % are "
            "allowed) and answers over a second (1 % are). At 1 it lasts exactly 30 days; at 14.4 "
            "it is gone in two.",
            Query(f"({failing('1h')}) / 0.005", "failures"),
            Query(f"({slow('1h')}) / 0.01", "slow answers"),
            unit="suffix:x",
            steps=lines_at((1, WARNING), (14.4, BAD)),
        ),
    ]


def _time() -> list[AnyPanel]:
    spent = total(rate(f"{_STAGE}_sum"), "stage")
    queries = total(rate(f"{_STAGE}_count", 'stage="messaging"'))
    return [
        timeseries(
            "Latency",
            "From a query's headers to its answer: half, 9 of 10 and 99 of 100 queries are faster.",
            *percentiles(_SECONDS, QUERIES, exemplars=True),
            unit="s",
            colors=SHARES,
            steps=lines_at((1, BAD)),
        ),
        timeseries(
            "Mean time by stage",
            "A mean query's time, split into its stages; they add up to the whole. Yellow "
            "is waiting.",
            Query(f"{spent} / scalar({queries})", "{{stage}}"),
            unit="s",
            stacked=True,
            colors=STAGES,
        ),
        timeseries(
            "p99 by stage",
            "The slowest of 100 in each stage: the stages that make slow queries slow.",
            Query(quantile(0.99, _STAGE, by=("stage",)), "{{stage}}"),
            unit="s",
            colors=STAGES,
        ),
    ]


def _saturation() -> list[AnyPanel]:
    in_flight = total(select("simile_upload_in_flight_queries"))
    limit = total(select("simile_upload_in_flight_limit_queries"))
    ready = (
        f"{select('simile_ready')} * on (job, instance) group_left (service) "
        f"{select('simile_process_info')}"
    )
    return [
        timeseries(
            "How busy",
            "Share in use: queries let in of those that can be answered in time, model workers, "
            "search threads. Scale the service that is near 100 %.",
            Query(f"{in_flight} / {limit}", "queries let in"),
            Query(model_workers_busy(), "model workers"),
            Query(search_threads_busy(), "search threads"),
            unit="percentunit",
            highest=1,
            steps=lines_at((0.8, WARNING)),
            colors={
                "queries let in": SERVICES["upload"],
                "model workers": SERVICES["embedder"],
                "search threads": SERVICES["searcher"],
            },
        ),
        timeseries(
            "Waiting in queues",
            "Messages that no service has taken yet. simile.embed.bulk holds an index build's work "
            "and may be long; a dead queue should be empty.",
            Query(queue_depth("simile[.].+"), "{{queue}}"),
            unit="short",
        ),
        timeseries(
            "Replicas",
            "Processes of each service that are ready: their /readyz names no failing check.",
            Query(total(ready, "service"), "{{service}}"),
            unit="none",
            colors=SERVICES,
            decimals=0,
        ),
    ]
