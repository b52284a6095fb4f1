"""Serves the state of this replica in the last minutes, as JSON and as a page."""

from __future__ import annotations

import asyncio
import math
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from aiohttp import web
from prometheus_client import CollectorRegistry

from services.shared.telemetry import metric_names
from services.shared.telemetry.health import Health
from services.shared.telemetry.samples import Histogram, Samples
from services.upload.collections import CollectionReader
from services.upload.http import responses
from services.upload.query.body import single_values
from services.upload.query.parameters import require_known
from services.upload.security.access import STATUS_PAGE, STATUS_ROUTE

_PAGE: Final = Path(__file__).parent / "pages" / "status.html"
_WINDOW_SECONDS: Final = 300.0
_LOOK_SECONDS: Final = 15.0
_NONE: Final = frozenset[str]()

_COUNTED: Final = (
    metric_names.REQUESTS,
    metric_names.IN_FLIGHT,
    metric_names.IN_FLIGHT_LIMIT,
    metric_names.CANARIES,
    metric_names.CANARY_SUCCESS,
    metric_names.QUEUE_MESSAGES,
    metric_names.LIVE_RECALL_EXPECTED,
    metric_names.LIVE_RECALL_FOUND,
)
_MEASURED: Final = (metric_names.REQUEST_SECONDS, metric_names.STAGE_SECONDS)


class RecentMetrics:
    """Keeps samples of the process's metrics of the last minutes; `run` is a stage."""

    def __init__(
        self, registry: CollectorRegistry, clock: Callable[[], float] = time.monotonic
    ) -> None:
        # All of a registry takes longer to collect than these few, and is more to keep.
        parts = (f"{name}{part}" for name in _MEASURED for part in ("_bucket", "_sum", "_count"))
        self._registry = registry.restricted_registry([*_COUNTED, *parts])
        self._clock = clock
        self._looks: deque[tuple[float, Samples]] = deque()

    def look(self) -> None:
        """Take a sample, and remove those that are too old."""
        now = self._clock()
        self._looks.append((now, Samples.of(self._registry.collect())))
        while self._looks[0][0] < now - _WINDOW_SECONDS:
            self._looks.popleft()

    def risen(self) -> tuple[Samples, float]:
        """Return the increase since the oldest sample, and its age in seconds."""
        now = Samples.of(self._registry.collect())
        began, then = self._looks[0] if self._looks else (self._clock(), now)
        return now.since(then), self._clock() - began

    def totals(self) -> Samples:
        """Return the metrics since the start of the process."""
        return Samples.of(self._registry.collect())

    async def run(self) -> None:
        """Take samples until cancelled."""
        while True:
            self.look()
            await asyncio.sleep(_LOOK_SECONDS)


@dataclass(frozen=True, slots=True)
class StatusHandlers:
    """GET /v1/status and its page."""

    replica: str
    version: str
    health: Health
    recent: RecentMetrics
    collections: CollectionReader
    started_unix_ms: int

    def routes(self) -> list[web.RouteDef]:
        """Return the routes."""
        return [web.get(STATUS_ROUTE, self.status), web.get(STATUS_PAGE, self.page)]

    async def page(self, request: web.Request) -> web.FileResponse:
        """GET /status: for people."""
        del request
        return web.FileResponse(_PAGE)

    async def status(self, request: web.Request) -> web.Response:
        """GET /v1/status: readiness, and the metrics of the last minutes."""
        require_known(single_values(request), _NONE)
        risen, seconds = self.recent.risen()
        listing, _ = await self.collections.listing()
        active = {one.name: one.opened.manifest.version for one in listing if one.opened}
        not_live, not_ready = self.health.not_live(), self.health.not_ready()
        body = {
            "replica": self.replica,
            "version": self.version,
            "started_unix_ms": self.started_unix_ms,
            "live": not not_live,
            "ready": not not_ready,
            "failing": not_ready,
            "window_seconds": round(seconds, 3),
            "queries": _queries(risen, seconds),
            "stages": [
                {"stage": stage, **_times(took)}
                for stage, took in metric_names.stage_seconds(risen).items()
            ],
            "canary": _canary(risen),
            "queues": metric_names.queue_messages([risen]),
            "collections": [responses.collection_body(one) for one in listing],
            "versions": [
                responses.version_fact(one, active=one.version == active.get(one.collection))
                for one in await self.collections.kept()
            ],
            "live_recall": _live_recall(self.recent.totals()),
        }
        return responses.json_response(body, headers={"Cache-Control": "no-store"})


def _queries(risen: Samples, seconds: float) -> Mapping[str, Any]:
    by_code = {code: int(n) for code, n in metric_names.queries_by_code(risen).items() if n}
    count = sum(by_code.values())
    return {
        "per_second": count / seconds if seconds else 0.0,
        "by_code": by_code,
        "in_flight": int(risen.total(metric_names.IN_FLIGHT)),
        "in_flight_limit": int(risen.total(metric_names.IN_FLIGHT_LIMIT)),
        **_times(metric_names.query_seconds(risen)),
    }


def _canary(risen: Samples) -> Mapping[str, Any]:
    last = risen.total(metric_names.CANARY_SUCCESS)
    by_code = {code: int(n) for code, n in risen.by("code", metric_names.CANARIES).items() if n}
    return {"by_code": by_code, "success_unix_ms": round(1000 * last) if last else None}


def _live_recall(totals: Samples) -> Mapping[str, Any]:
    """Return the live recall by collection, where the searchers run in this process."""
    expected = totals.by("collection", metric_names.LIVE_RECALL_EXPECTED)
    found = totals.by("collection", metric_names.LIVE_RECALL_FOUND)
    return {
        name: {"recall": found.get(name, 0.0) / count, "neighbors": int(count)}
        for name, count in expected.items()
        if count
    }


def _times(took: Histogram) -> Mapping[str, Any]:
    return {
        "count": int(took.count),
        "mean_ms": _milliseconds(took.mean),
        "p50_ms": _milliseconds(took.quantile(0.5)),
        "p99_ms": _milliseconds(took.quantile(0.99)),
    }


def _milliseconds(seconds: float) -> float | None:
    return None if math.isnan(seconds) else round(1000 * seconds, 3)
