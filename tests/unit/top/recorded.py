"""Writes the metrics that `simile top` reads of each service, with numbers chosen by the tests."""

from __future__ import annotations

_LIMITS = ("0.1", "1.0", "+Inf")


def upload(
    *,
    ok: int = 0,
    overloaded: int = 0,
    quick: int = 0,
    slow: int = 0,
    model_seconds: float = 0.0,
    canary_at: float = 0.0,
    wrong_canaries: int = 0,
    waiting: int = 0,
) -> str:
    """Return an upload's metrics; `quick` queries took at most 0.1 s, `slow` ones up to 1 s."""
    total = ok + overloaded
    return f"""\
# TYPE simile_process_info gauge
simile_process_info{{service="upload",version="1.2.3"}} 1.0
# TYPE process_cpu_seconds_total counter
process_cpu_seconds_total {10 + total / 100}
# TYPE process_resident_memory_bytes gauge
process_resident_memory_bytes 1.048576e+08
# TYPE simile_upload_requests_total counter
simile_upload_requests_total{{code="ok",route="/v1/search",status="200"}} {ok}
simile_upload_requests_total{{code="overloaded",route="/v1/search",status="503"}} {overloaded}
simile_upload_requests_total{{code="ok",route="/static",status="200"}} {1000 + total}
# TYPE simile_upload_request_seconds histogram
{_buckets("simile_upload_request_seconds", 'route="/v1/search"', quick, slow, total)}
# TYPE simile_upload_stage_seconds histogram
{_buckets("simile_upload_stage_seconds", 'stage="search"', quick + slow, 0, quick + slow)}
{_buckets("simile_upload_stage_seconds", 'stage="model"', quick, slow, quick + slow, model_seconds)}
# TYPE simile_upload_in_flight_queries gauge
simile_upload_in_flight_queries 3.0
# TYPE simile_upload_in_flight_limit_queries gauge
simile_upload_in_flight_limit_queries 12.0
# TYPE simile_upload_canary_total counter
simile_upload_canary_total{{asked_by="image",code="ok"}} 5
simile_upload_canary_total{{asked_by="image",code="wrong_answer"}} {wrong_canaries}
# TYPE simile_upload_canary_success_timestamp_seconds gauge
simile_upload_canary_success_timestamp_seconds {canary_at}
# TYPE simile_broker_queue_messages gauge
simile_broker_queue_messages{{queue="simile.embed"}} {waiting}
"""


def embedder(*, images: int = 0, busy_seconds: float = 0.0, redelivered: int = 0) -> str:
    """Return the metrics of an embedder with two model workers."""
    return f"""\
# TYPE simile_embedder_images_total counter
simile_embedder_images_total{{code="ok",intake="interactive"}} {images}
# TYPE simile_embedder_worker_busy_seconds_total counter
simile_embedder_worker_busy_seconds_total {busy_seconds}
# TYPE simile_embedder_model_workers gauge
simile_embedder_model_workers{{device="cpu",model_id="m",precision="fp32",runtime="torch"}} 2
# TYPE simile_embedder_redelivered_total counter
simile_embedder_redelivered_total {redelivered}
# TYPE simile_broker_queue_messages gauge
simile_broker_queue_messages{{queue="simile.embed"}} 4
"""


def searcher(version: str, *, expected: int = 0, found: int = 0, created: float = 0.0) -> str:
    """Return the metrics of a searcher that has this version of `birds` open."""
    return f"""\
# TYPE simile_searcher_index_items gauge
simile_searcher_index_items{{collection="birds",index_version="{version}",method="exact"}} 900
# TYPE simile_searcher_index_recall gauge
simile_searcher_index_recall{{collection="birds"}} 0.99
# TYPE simile_searcher_index_created_timestamp_seconds gauge
simile_searcher_index_created_timestamp_seconds{{collection="birds"}} {created}
# TYPE simile_searcher_live_recall_expected_total counter
simile_searcher_live_recall_expected_total{{collection="birds"}} {expected}
# TYPE simile_searcher_live_recall_found_total counter
simile_searcher_live_recall_found_total{{collection="birds"}} {found}
"""


def _buckets(
    name: str, labels: str, quick: int, slow: int, count: int, seconds: float = 0.0
) -> str:
    counts = zip(_LIMITS, (quick, quick + slow, count), strict=True)
    lines = [f'{name}_bucket{{{labels},le="{limit}"}} {number}' for limit, number in counts]
    lines += [f"{name}_count{{{labels}}} {count}", f"{name}_sum{{{labels}}} {seconds}"]
    return "\n".join(lines)
