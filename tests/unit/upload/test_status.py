"""GET /v1/status: how a replica says that it is, and how its last minutes were."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry, Counter

from services.shared.telemetry import metric_names
from services.upload.security.api_keys import Scope, new_key
from services.upload.settings import UploadSettings
from services.upload.status import RecentMetrics
from tests.unit.upload.conftest import Api, matches, refused


async def _status(api: Api) -> Mapping[str, Any]:
    answer = await api.get("/v1/status")
    assert answer.status == 200
    matches("Status", answer)
    status: Mapping[str, Any] = answer.json
    return status


async def test_it_tells_of_queries_and_of_nothing_else(api: Api, picture: bytes) -> None:
    """Two answered, one refused; asking for the status, the page or a list is no query."""
    for body in (picture, picture, b"no image"):
        await api.search(body)
    await api.get("/v1/collections")
    status = await _status(api)
    queries = status["queries"]
    assert queries["by_code"] == {"ok": 2, "unsupported_format": 1}
    assert queries["count"] == 3
    # The window is given in whole milliseconds.
    assert 3 / queries["per_second"] == pytest.approx(status["window_seconds"], abs=0.001)
    assert 0 < queries["p50_ms"] <= queries["p99_ms"]
    assert queries["in_flight"] == 0
    assert queries["in_flight_limit"] > 0
    stages = {one["stage"]: one for one in status["stages"]}
    assert stages["search"]["count"] == 2
    assert 2.5 <= stages["search"]["p50_ms"] <= 5  # the stand-in says 3 ms, in this bucket


async def test_it_tells_what_there_is_to_search(api: Api) -> None:
    """The collections as they are listed, with version, recall and age."""
    listed = (await api.get("/v1/collections")).json["collections"]
    status = await _status(api)
    assert status["collections"] == listed
    assert (status["live"], status["ready"], status["failing"]) == (True, True, {})
    assert status["queues"] == {}  # nobody counts them here
    assert status["canary"] == {"by_code": {}, "success_unix_ms": None}


async def test_what_fails_is_told_with_its_reason(api: Api) -> None:
    """The answer is a 200 all the same: it is no probe."""
    api.telemetry.health.ready_when("broker", lambda: "the broker is away")
    status = await _status(api)
    assert (status["live"], status["ready"]) == (True, False)
    assert status["failing"] == {"broker": "the broker is away"}
    api.telemetry.health.live_when("model", lambda: "it stands still")
    assert not (await _status(api))["live"]


async def test_parameters_are_refused(api: Api) -> None:
    """As on every route."""
    refused(await api.get("/v1/status?window=9"), 400, "malformed_request")


def test_the_last_minutes_are_the_last_ones() -> None:
    """Counts of six minutes ago are not shown any more."""
    registry, now = CollectorRegistry(), [0.0]
    asked = Counter(
        metric_names.REQUESTS, "", ["route", "status", "code"], registry=registry
    ).labels("/v1/embed", "200", "ok")
    recent = RecentMetrics(registry, clock=lambda: now[0])
    recent.look()
    asked.inc(100)
    for minute in range(1, 7):
        now[0] = 60.0 * minute
        recent.look()
        asked.inc()
    risen, seconds = recent.risen()
    assert seconds == 300
    assert metric_names.queries_by_code(risen) == {"ok": 6}


class TestWithKeys:
    """Where keys are set."""

    READER, READER_KEY = new_key("reader", [Scope.READ])
    OPERATOR, OPERATOR_KEY = new_key("operator", [Scope.ADMIN])

    @pytest.fixture
    def upload_settings(self, tmp_path: Path) -> UploadSettings:
        """Two keys, one for each scope."""
        file = tmp_path / "keys"
        file.write_text(f"{self.READER_KEY.line}\n{self.OPERATOR_KEY.line}\n")
        return UploadSettings(port=0, api_keys_file=file)

    async def test_only_an_operator_may_ask(self, api: Api) -> None:
        """No key is 401, one that may read is 403; the page itself is open, to ask for one."""
        refused(await api.get("/v1/status"), 401, "unauthenticated")
        reader = {"X-API-Key": self.READER}
        answer = await api.get("/v1/status", headers=reader)
        refused(answer, 403, "forbidden")
        assert "lacks the scope admin" in answer.json["detail"]
        allowed = await api.get("/v1/status", headers={"X-API-Key": self.OPERATOR})
        assert allowed.status == 200
        assert allowed.headers["Cache-Control"] == "no-store"
        page = await api.get("/status")
        assert (page.status, page.headers["Cache-Control"]) == (200, "no-cache")
