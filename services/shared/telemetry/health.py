"""Truthful health: named checks, and the admin server that answers /livez, /readyz, /metrics."""

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
"""None when all is well, else the reason, for an operator to read."""


def lasting(check: Check, seconds: float, clock: Callable[[], float] = time.monotonic) -> Check:
    """Fails once `check` has failed at every look for longer than so long."""
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
    """The checks of a process: live = worth keeping, ready = can do its job now."""

    def __init__(self) -> None:
        """Start with no checks: live and ready."""
        self._live: dict[str, Check] = {}
        self._ready: dict[str, Check] = {}

    def live_when(self, name: str, check: Check) -> None:
        """Restart this process when the check keeps failing."""
        self._live[name] = check

    def ready_when(self, name: str, check: Check) -> None:
        """Send this process no work while the check fails."""
        self._ready[name] = check

    def not_live(self) -> Mapping[str, str]:
        """The failing liveness checks with their reasons."""
        return _failing(self._live)

    def not_ready(self) -> Mapping[str, str]:
        """The failing readiness checks with their reasons; what isn't live isn't ready."""
        return _failing(self._live) | _failing(self._ready)


class HealthMetrics:
    """Whether a process is ready, for whoever sees only its metrics."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.ready = Gauge(
            "simile_ready",
            "1 while /readyz says ok, 0 while it names what fails; looked at with each scrape.",
            registry=registry,
        )

    def show(self, health: Health) -> None:
        """Show it from now on."""
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
    """The admin application: GET /livez, /readyz (200 or 503 with reasons) and /metrics."""

    async def metrics(request: web.Request) -> web.Response:
        # OpenMetrics where that is asked for: it alone has exemplars.
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
    """Serve the admin application; `runner.addresses` has the port, `cleanup()` ends it.

    setting: the variable that the port comes from. Raises InvalidSettings when it is taken.
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
    """Serve the admin application while inside; its base URL. Raises InvalidSettings."""
    runner = await start_admin(health, registry, host, port, setting)
    try:
        yield base_url("http", host, runner.addresses[0][1])
    finally:
        await runner.cleanup()
