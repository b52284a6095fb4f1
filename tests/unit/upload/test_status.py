"""GET /v1/status shows the health of a replica, and its last minutes."""

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
from tests.support.volume import items, publish_version, unit_vectors
from tests.unit.upload.conftest import COUNT, Api, matches, refused


async def _status(api: Api) -> Mapping[str, Any]:
    answer = await api.get("/v1/status")
    assert answer.status == 200
    matches("Status", answer)
    status: Mapping[str, Any] = answer.json
    return status


async def test_the_status_counts_queries_alone(api: Api, picture: bytes) -> None:
    """Two queries are answered and one is refused; other requests are not counted."""
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
    assert 2.5 <= stages["search"]["p50_ms"] <= 5  # the fake searcher reports 3 ms, in this bucket


async def test_the_status_lists_the_collections(api: Api) -> None:
    """The collections are listed with version, recall and age."""
    listed = (await api.get("/v1/collections")).json["collections"]
    status = await _status(api)
    assert status["collections"] == listed
    assert (status["live"], status["ready"], status["failing"]) == (True, True, {})
    assert status["queues"] == {}  # no queue is watched here
    assert status["canary"] == {"by_code": {}, "success_unix_ms": None}


async def test_failing_checks_are_shown_with_their_reasons(api: Api) -> None:
    """The answer has status 200, since the route is no probe."""
    api.telemetry.health.ready_when("broker", lambda: "the broker is unavailable")
    status = await _status(api)
    assert (status["live"], status["ready"]) == (True, False)
    assert status["failing"] == {"broker": "the broker is unavailable"}
    api.telemetry.health.live_when("model", lambda: "it stands still")
    assert not (await _status(api))["live"]


async def test_it_lists_the_newest_versions(api: Api) -> None:
    """Newest first; the one that answers is marked, and at most five are listed."""
    active = api.volume.active("birds")
    for number in range(1, 7):
        publish_version(
            api.volume, "birds", unit_vectors(COUNT), items(COUNT),
            images_root=api.images, number=number,
        )  # fmt: skip
    api.volume.activate("birds", active)
    versions = (await _status(api))["versions"]
    names = [one["index_version"] for one in versions]
    assert names == sorted(api.volume.versions("birds"), reverse=True)[:5]
    assert [one["active"] for one in versions] == [name == active for name in names]
    assert {one["count"] for one in versions} == {COUNT}


async def test_it_has_the_live_recall_of_searchers_in_this_process(api: Api) -> None:
    """Only of collections with samples; without searchers there is none."""
    assert (await _status(api))["live_recall"] == {}
    counts = {
        name: Counter(name, "", ["collection"], registry=api.telemetry.registry)
        for name in (metric_names.LIVE_RECALL_EXPECTED, metric_names.LIVE_RECALL_FOUND)
    }
    counts[metric_names.LIVE_RECALL_EXPECTED].labels("birds").inc(40)
    counts[metric_names.LIVE_RECALL_FOUND].labels("birds").inc(38)
    counts[metric_names.LIVE_RECALL_EXPECTED].labels("empty")
    assert (await _status(api))["live_recall"] == {"birds": {"recall": 0.95, "neighbors": 40}}


async def test_parameters_are_refused(api: Api) -> None:
    """Unknown parameters are refused, as on every route."""
    refused(await api.get("/v1/status?window=9"), 400, "malformed_request")


def test_only_the_last_minutes_are_counted() -> None:
    """Counts of six minutes ago are not shown."""
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
    """Tests a service with keys."""

    READER, READER_KEY = new_key("reader", [Scope.READ])
    OPERATOR, OPERATOR_KEY = new_key("operator", [Scope.ADMIN])

    @pytest.fixture
    def upload_settings(self, tmp_path: Path) -> UploadSettings:
        """Return settings with a key for each scope."""
        file = tmp_path / "keys"
        file.write_text(f"{self.READER_KEY.line}\n{self.OPERATOR_KEY.line}\n")
        return UploadSettings(port=0, api_keys_file=file)

    async def test_the_status_requires_the_scope_admin(self, api: Api) -> None:
        """Without a key the answer is 401, with a reader's key 403; the page itself is open."""
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
