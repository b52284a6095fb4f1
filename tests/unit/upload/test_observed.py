"""Each request leaves a log line and counts."""

from __future__ import annotations

from typing import Any

import pytest
from structlog.testing import capture_logs

from services.shared.contracts import Failure
from services.upload.settings import UploadSettings
from tests.unit.upload.conftest import Api, form_of

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
TRACEPARENT = f"00-{TRACE}-00f067aa0ba902b7-01"


def _queries(lines: list[Any]) -> list[dict[str, Any]]:
    return [line for line in lines if line.get("action") == "query"]


def _metric(api: Api, name: str, **labels: str) -> float:
    return api.telemetry.registry.get_sample_value(f"simile_upload_{name}", labels) or 0.0


async def test_an_answered_query_is_one_line(api: Api, picture: bytes) -> None:
    """The line holds id, code, times, sizes, and the index version."""
    with capture_logs() as lines:
        answer = await api.search(picture)
    (line,) = _queries(lines)
    assert line["correlation_id"] == answer.headers["X-Correlation-Id"] == answer.json["query_id"]
    assert (line["code"], line["status"]) == ("ok", 200)
    assert line["index_version"] == answer.json["index_version"]
    assert (line["bytes"], line["sent_bytes"], line["format"]) == (
        len(picture),
        len(picture),
        "PNG",
    )
    assert line["timings_ms"]["total"] == pytest.approx(1000 * line["seconds"], abs=0.002)
    assert "trace_id" not in line


async def test_a_failed_query_is_one_line_too(api: Api, picture: bytes) -> None:
    """The line holds the error and the times until the error."""
    api.embedder.failing[picture] = Failure("undecodable_image", "it is truncated")
    with capture_logs() as lines:
        answer = await api.search(picture)
    (line,) = _queries(lines)
    assert (line["code"], line["status"], line["detail"]) == (
        "undecodable_image", 422, "it is truncated",
    )  # fmt: skip
    assert line["correlation_id"] == answer.json["correlation_id"]
    assert {"receive", "sniff", "publish", "messaging", "reply"} <= line["timings_ms"].keys()


async def test_each_image_of_a_batch_is_a_line(api: Api, picture: bytes) -> None:
    """Each image has a line with its own id, and a line for the batch lists the ids."""
    with capture_logs() as lines:
        answer = await api.ask("POST", "/v1/search/batch", data=form_of(picture, b"no image"))
    names = [one.get("answer", {}).get("query_id") for one in answer.json["results"]]
    queries, (batch,) = _queries(lines), [one for one in lines if one.get("action") == "batch"]
    assert {line["code"] for line in queries} == {"ok", "unsupported_format"}
    assert batch["queries"][0] == names[0]
    assert sorted(batch["queries"]) == sorted(line["correlation_id"] for line in queries)


async def test_a_callers_trace_is_named_and_passed_on(api: Api, picture: bytes) -> None:
    """With tracing off, a valid context is passed on, and an invalid context is dropped."""
    with capture_logs() as lines:
        await api.search(picture, headers={"traceparent": TRACEPARENT})
        await api.search(picture + b"\0", headers={"traceparent": TRACEPARENT.upper()})
    assert [line.get("trace_id") for line in _queries(lines)] == [TRACE, None]
    assert [slip.traceparent for slip in api.searcher.slips] == [TRACEPARENT, ""]


async def test_admitted_and_refused_queries_are_counted(api: Api, picture: bytes) -> None:
    """Admitted queries are counted, and refusals are counted by code."""
    await api.search(picture)
    api.broker.block()
    await api.search(picture)
    assert _metric(api, "admitted_total") == 1
    assert _metric(api, "refused_total", code="broker_unavailable") == 1
    assert _metric(api, "in_flight_queries") == 0


@pytest.mark.parametrize("upload_settings", [UploadSettings(port=0, embedding_cache_bytes=0)])
async def test_only_answered_queries_count_in_stage_metrics(api: Api, picture: bytes) -> None:
    """Stages are observed for answered queries alone, so that they add up to their time."""
    api.embedder.failing[b"GIF89a" + picture] = Failure("undecodable_image", "no")
    answer = await api.search(picture)
    await api.search(b"no image")
    stages = set(answer.json["timings_ms"]) - {"total"}
    for stage in stages:
        assert _metric(api, "stage_seconds_count", stage=stage) == 1, stage
    assert _metric(api, "request_seconds_count", route="/v1/search") == 2


async def test_more_like_this_has_a_stage_of_its_own(api: Api) -> None:
    """The item's vector is looked up, and nothing is received, sniffed or embedded."""
    answer = await api.get(f"/v1/items/birds/{api.items[0].item_id}/similar")
    assert list(answer.json["timings_ms"]) == [
        "lookup", "publish", "search", "messaging", "reply", "total",
    ]  # fmt: skip
