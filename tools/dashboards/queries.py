"""Builds the dashboards' PromQL: every selector has the chosen namespace and release."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

CHOSEN: Final = 'namespace=~"$namespace", release=~"$release"'
WINDOW: Final = "$__rate_interval"

QUERIES: Final = 'route=~"/v1/(search.*|embed|.+/similar)"'
"""Requests of queries; images and pages are not among them."""

FAILED: Final = 'status=~"5.."'
"""Failures of the service: refused, failed or too late."""


@dataclass(frozen=True, slots=True)
class Query:
    """An expression and the names of its lines; `{{pod}}` in a name is that label's value."""

    expression: str
    name: str = ""
    exemplars: bool = False
    """Draw exemplars, which link to traces, over the lines."""


def select(metric: str, *matchers: str) -> str:
    """Return the metric of the chosen release, narrowed by matchers such as `stage="model"`."""
    return f"{metric}{{{', '.join([CHOSEN, *matchers])}}}"


def rate(metric: str, *matchers: str, window: str = WINDOW) -> str:
    """Return the growth of a counter per second."""
    return f"rate({select(metric, *matchers)}[{window}])"


def increase(metric: str, *matchers: str, window: str = WINDOW) -> str:
    """Return the growth of a counter in the window."""
    return f"increase({select(metric, *matchers)}[{window}])"


def total(expression: str, *by: str) -> str:
    """Return the sum, grouped by the labels in `by`."""
    return f"sum by ({', '.join(by)}) ({expression})" if by else f"sum({expression})"


def quantile(share: float, histogram: str, *matchers: str, by: tuple[str, ...] = ()) -> str:
    """Return the quantile of a histogram."""
    buckets = total(rate(f"{histogram}_bucket", *matchers), *by, "le")
    return f"histogram_quantile({share}, {buckets})"


def percentiles(
    histogram: str,
    *matchers: str,
    shares: tuple[float, ...] = (0.5, 0.9, 0.99),
    exemplars: bool = False,
) -> list[Query]:
    """Return a query for each percentile, named p50 and the like."""
    return [
        Query(quantile(share, histogram, *matchers), f"p{100 * share:g}", exemplars)
        for share in shares
    ]


def mean(histogram: str, *matchers: str, by: tuple[str, ...] = ()) -> str:
    """Return the mean of a histogram's observations."""
    summed = total(rate(f"{histogram}_sum", *matchers), *by)
    return f"{summed} / {total(rate(f'{histogram}_count', *matchers), *by)}"


def model_workers_busy(*by: str) -> str:
    """Return the used share of the embedders' workers: busy seconds per second, over workers."""
    used = rate("simile_embedder_worker_busy_seconds_total")
    return f"{total(used, *by)} / {total(select('simile_embedder_model_workers'), *by)}"


def search_threads_busy(*by: str) -> str:
    """Return the used share of the searchers' threads."""
    used = rate("simile_searcher_busy_seconds_total")
    return f"{total(used, *by)} / {total(select('simile_searcher_threads'), *by)}"


def rises(service: str, *counters: str) -> list[Query]:
    """Return the growth of counters that should stay at 0, and 0 for absent ones."""
    return [
        Query(
            f"{total(rate(f'simile_{service}_{name}_total'))} or vector(0)", name.replace("_", " ")
        )
        for name in counters
    ]


def of_service(expression: str, service: str) -> str:
    """Narrow a metric of every process to the processes of a service."""
    # `simile up` is all services in a process.
    of_it = select("simile_process_info", f'service=~"{service}|up"')
    return f"{expression} and on (job, instance) {of_it}"


def failing(window: str = WINDOW) -> str:
    """Return the share of failed queries; 0, not empty, if none failed."""
    everything = total(rate("simile_upload_requests_total", QUERIES, window=window))
    failed = total(rate("simile_upload_requests_total", QUERIES, FAILED, window=window))
    return f"({failed} or 0 * {everything}) / {everything}"


def slow(window: str = WINDOW) -> str:
    """Return the share of queries that took over a second."""
    # A bucket's bound is "1.0" in this text format, and "1" in the storage of newer servers.
    quick = rate("simile_upload_request_seconds_bucket", QUERIES, 'le=~"1|1.0"', window=window)
    everything = rate("simile_upload_request_seconds_count", QUERIES, window=window)
    return f"1 - {total(quick)} / {total(everything)}"


def live_recall(window: str = WINDOW) -> str:
    """Return the recall of sampled queries, if there were any."""
    found = increase("simile_searcher_live_recall_found_total", window=window)
    expected = increase("simile_searcher_live_recall_expected_total", window=window)
    return f"{total(found, 'collection')} / ({total(expected, 'collection')} > 0)"


def canary(window: str) -> str:
    """Return the share of canaries with the right answer."""
    tried = increase("simile_upload_canary_total", window=window)
    right = increase("simile_upload_canary_total", 'code="ok"', window=window)
    return f"({total(right)} or 0 * {total(tried)}) / {total(tried)}"


def queue_depth(queue: str) -> str:
    """Return the messages waiting in queues; all processes report them, so the maximum counts."""
    depth = select("simile_broker_queue_messages", f'queue=~"{queue}"')
    return f"sum by (queue) (max by (namespace, release, queue) ({depth}))"
