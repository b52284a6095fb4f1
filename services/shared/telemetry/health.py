"""Checks the health of a process, and serves /livez, /readyz and /metrics."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Final

from aiohttp import web
from prometheus_client import CollectorRegistry, Gauge
from prometheus_client.exposition import choose_encoder

from services.shared.listening import ADMIN_PORT, base_url, open_site

Check = Callable[[], str | None]
"""Returns None while all is well, or the reason of the failure, for an operator."""


def lasting(check: Check, seconds: float, clock: Callable[[], float] = time.monotonic) -> Check:
    """Return a check that fails once `check` has failed for longer than `seconds`."""
    since: float | None = None

    def lasts() -> str | None:
        nonlocal since
        reason = check()
        if reason is None:
            since = None
            return None
        since = clock() if since is None else since
        still = clock() - since
        return None if still <= seconds else f"{reason}, for {still:.0f} s"

    return lasts


class Health:
    """Holds the checks of a process.

    A process that is not live is restarted; one that is not ready gets no work.
    """

    def __init__(self) -> None:
        """Start without checks: live and ready."""
        self._live: dict[str, Check] = {}
        self._ready: dict[str, Check] = {}

    def live_when(self, name: str, check: Check) -> None:
        """Add a check of liveness: Kubernetes restarts the process while it fails."""
        self._live[name] = check

    def ready_when(self, name: str, check: Check) -> None:
        """Add a check of readiness: the process gets no work while it fails."""
        self._ready[name] = check

    @property
    def ready_checks(self) -> list[str]:
        """Return the names of the checks of readiness."""
        return list(self._ready)

    def not_live(self) -> Mapping[str, str]:
        """Return the failing liveness checks with their reasons."""
        return _failing(self._live)

    def not_ready(self) -> Mapping[str, str]:
        """Return the failing checks of readiness and liveness with their reasons."""
        return _failing(self._live) | _failing(self._ready)


class HealthMetrics:
    """Exports the readiness of a process as a metric."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.ready = Gauge(
            "simile_ready",
            "1 while /readyz answers ok, 0 while a check fails; evaluated at each scrape.",
            registry=registry,
        )

    def show(self, health: Health) -> None:
        """Export the readiness from now on."""
        self.ready.set_function(lambda: not health.not_ready())


def _failing(checks: Mapping[str, Check]) -> dict[str, str]:
    reasons = ((name, check()) for name, check in checks.items())
    return {name: reason for name, reason in reasons if reason is not None}


_HEALTH: Final = web.AppKey("health", Health)


def _answer(failing: Mapping[str, str]) -> web.Response:
    status = 503 if failing else 200
    return web.json_response(
        {"status": "failing" if failing else "ok", "failing": dict(failing)}, status=status
    )


async def _livez(request: web.Request) -> web.Response:
    return _answer(request.app[_HEALTH].not_live())


async def _readyz(request: web.Request) -> web.Response:
    return _answer(request.app[_HEALTH].not_ready())


def admin_app(health: Health, registry: CollectorRegistry) -> web.Application:
    """Return the admin application: GET /livez, /readyz (200, or 503 with reasons), /metrics."""

    async def metrics(request: web.Request) -> web.Response:
        # Only OpenMetrics, where the client accepts it, has exemplars.
        encode, content_type = choose_encoder(request.headers.get("Accept", ""))
        return web.Response(body=encode(registry), headers={"Content-Type": content_type})

    async def name_no_version(_request: web.Request, response: web.StreamResponse) -> None:
        response.headers["Server"] = "simile"

    app = web.Application()
    app[_HEALTH] = health
    app.on_response_prepare.append(name_no_version)
    app.add_routes(
        [web.get("/livez", _livez), web.get("/readyz", _readyz), web.get("/metrics", metrics)]
    )
    return app


async def start_admin(
    health: Health,
    registry: CollectorRegistry,
    host: str,
    port: int,
    setting: str = ADMIN_PORT,
) -> web.AppRunner:
    """Serve the admin application.

    Args:
        health: the checks.
        registry: the metrics.
        host: the address to listen on.
        port: the TCP port; 0 takes a free one.
        setting: the variable that the port comes from, for the error.

    Returns:
        The running server: `addresses` has the port, `cleanup()` ends it.

    Raises:
        InvalidSettings: the port is taken.
    """
    runner = web.AppRunner(admin_app(health, registry), access_log=None)
    await runner.setup()
    await open_site(runner, host, port, setting)
    return runner


@asynccontextmanager
async def admin(
    health: Health,
    registry: CollectorRegistry,
    host: str,
    port: int,
    setting: str = ADMIN_PORT,
) -> AsyncIterator[str]:
    """Serve the admin application while inside, and yield its base URL. Raises InvalidSettings."""
    runner = await start_admin(health, registry, host, port, setting)
    try:
        yield base_url("http", host, runner.addresses[0][1])
    finally:
        await runner.cleanup()
