"""Defines the dashboard of an index build: progress, remaining time, effect on queries."""

from __future__ import annotations

from typing import Final

from grafana_foundation_sdk.builders.dashboard import Dashboard

from tools.dashboards.colors import SHARES, STAGES
from tools.dashboards.frame import frame, row
from tools.dashboards.panels import (
    BAD,
    NONE_WANTED,
    PLAIN,
    AnyPanel,
    lines_at,
    number,
    timeseries,
)
from tools.dashboards.queries import (
    QUERIES,
    Query,
    increase,
    percentiles,
    queue_depth,
    rate,
    select,
    total,
)

_DONE: Final = "simile_index_build_done_units"
_EXPECTED: Final = "simile_index_build_expected_units"
_RUNS: Final = "simile_index_build_stage"
_STARTED: Final = "simile_index_build_started_timestamp_seconds"
_EMBED: Final = 'stage="embedding"'
_BULK: Final = 'intake="bulk"'


def index_build() -> Dashboard:
    """Return the dashboard of an index build."""
    board = frame(
        "simile-index-build",
        "Simile / Index build",
        "How far is the build, when will it be over, does it slow down queries?",
    )
    row(board, "Overview", *_headline())
    row(board, "Progress", *_progress())
    row(board, "Effect on queries", *_effects())
    row(board, "Result", *_results())
    return board


def _headline() -> list[AnyPanel]:
    done = total(select(_DONE, _EMBED))
    expected = total(select(_EXPECTED, _EMBED))
    pace = f"sum(deriv({select(_DONE, _EMBED)}[5m]))"
    return [
        number(
            "Builds running",
            "Index builds that run now.",
            Query(f"{total(select(_RUNS))} or vector(0)"),
            unit="none",
            steps=PLAIN,
        ),
        number(
            "Embedded",
            "Share of the images that are embedded, including those embedded before.",
            Query(f"{done} / {expected}"),
            unit="percentunit",
        ),
        number(
            "Images",
            "Images embedded a second, for builds.",
            Query(total(rate("simile_embedder_images_total", _BULK))),
            unit="suffix: /s",
        ),
        number(
            "Time left to embed",
            "The remaining images, over the rate of the last five minutes.",
            Query(f"({expected} - {done}) / ({pace} > 0)"),
            unit="s",
        ),
        number(
            "Running for",
            "Since the running build began.",
            Query(
                f"max((time() - {select(_STARTED)}) "
                f"and on (collection, instance) {select(_RUNS)} == 1)"
            ),
            unit="s",
        ),
        number(
            "Left out",
            "Images that can't be read or decoded; the build's log names them.",
            Query(f"{total(select('simile_index_build_failed_images'))} or vector(0)"),
            unit="short",
            steps=NONE_WANTED,
        ),
    ]


def _progress() -> list[AnyPanel]:
    done = total(select(_DONE), "collection", "stage")
    expected = total(select(_EXPECTED), "collection", "stage")
    return [
        timeseries(
            "Progress by stage",
            "Share of each stage that is done. Stages of unknown length have no line.",
            Query(f"{done} / {expected}", "{{collection}} {{stage}}"),
            unit="percentunit",
            highest=1,
            span=12,
        ),
        timeseries(
            "Stage at work",
            "Which stage runs: reading files, embedding, reducing and measuring plans, writing.",
            Query(f"{total(select(_RUNS), 'collection', 'stage')} > 0", "{{collection}} {{stage}}"),
            unit="none",
            stacked=True,
            span=12,
            decimals=0,
        ),
    ]


def _effects() -> list[AnyPanel]:
    return [
        timeseries(
            "Images by intake",
            "Images by source: users' images go first, the build's images fill the rest.",
            Query(total(rate("simile_embedder_images_total"), "intake"), "{{intake}}"),
            unit="suffix: /s",
            stacked=True,
            colors={"interactive": STAGES["model"], "bulk": STAGES["decode"]},
        ),
        timeseries(
            "Waiting for embedders",
            "The build's images in simile.embed.bulk, beside users' images in simile.embed.",
            Query(queue_depth("simile.embed|simile.embed.bulk"), "{{queue}}"),
            unit="short",
            colors={"simile.embed": STAGES["model"], "simile.embed.bulk": STAGES["decode"]},
        ),
        timeseries(
            "Latency of queries meanwhile",
            "From a query's headers to its answer: the effect of a build on users.",
            *percentiles("simile_upload_request_seconds", QUERIES, shares=(0.5, 0.99)),
            unit="s",
            colors=SHARES,
            steps=lines_at((1, BAD)),
        ),
    ]


def _results() -> list[AnyPanel]:
    versions = select("simile_searcher_index_items")
    opened = "simile_searcher_index_open_seconds"
    return [
        timeseries(
            "Items of the active version",
            "A step shows a new version; check a fall.",
            Query(f"max by (collection) ({versions})", "{{collection}}"),
            unit="short",
            lowest=None,
        ),
        timeseries(
            "Searchers by version",
            "How searchers follow a new version: the old one's line goes down, the new one's up.",
            Query(f"count by (collection, index_version) ({versions})", "{{index_version}}"),
            unit="none",
            stacked=True,
            decimals=0,
        ),
        timeseries(
            "Opening a version",
            "Time that a searcher takes to verify, map and try a version before it answers.",
            Query(
                f"{total(increase(f'{opened}_sum', window='5m'))} / "
                f"{total(increase(f'{opened}_count', window='5m'))}",
                "mean",
            ),
            unit="s",
        ),
    ]
