"""`simile top` watches the admin server of a process."""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
from collections.abc import AsyncIterator, Iterable, Iterator

import pytest
from click.testing import CliRunner
from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector
from rich.console import Console

from services.cli import main as cli
from services.shared.lifecycle import cancel
from services.shared.telemetry.health import Health, start_admin
from services.top import screen
from tests.support.threaded import threaded

NOBODY = "http://127.0.0.1:1"


class Asked(Collector):
    """Collects the metrics of an upload that answers 10 more queries between scrapes."""

    def __init__(self) -> None:
        self._count = 0

    def collect(self) -> Iterable[Metric]:
        """Return the counts."""
        self._count += 10
        requests = CounterMetricFamily(
            "simile_upload_requests", "", labels=["route", "status", "code"]
        )
        requests.add_metric(["/v1/search", "200", "ok"], self._count)
        flying = GaugeMetricFamily("simile_upload_in_flight_queries", "", value=2)
        return [requests, flying]


@contextlib.asynccontextmanager
async def serving(health: Health) -> AsyncIterator[str]:
    """Run an admin server, and yield its address."""
    registry = CollectorRegistry()
    registry.register(Asked())
    runner = await start_admin(health, registry, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


@pytest.fixture
def admin() -> Iterator[str]:
    """Run the admin server of a process that is not ready, in a thread."""
    health = Health()
    health.ready_when("broker", lambda: "the broker is unavailable")
    with threaded(serving(health)) as url:
        yield url


def _top(*arguments: str) -> tuple[int, str]:
    done = CliRunner().invoke(cli.main, ["top", "--interval", "0.05", *arguments])
    return done.exit_code, done.output


def test_once_shows_one_interval_and_ends(admin: str) -> None:
    """The output holds the rate, the readiness with its reason, and the processes away."""
    code, shown = _top("--once", "--metrics", admin, "--metrics", NOBODY)
    assert code == 0
    assert "1 of 2 processes answer" in shown
    assert "in flight 2" in shown
    assert "broker: the broker is unavailable" in shown
    assert "not ready" in shown
    assert "away" in shown


def test_json_has_the_same_for_scripts(admin: str) -> None:
    """10 queries were answered between the scrapes; /metrics may be part of the address."""
    code, shown = _top("--json", "--metrics", f"{admin}/metrics")
    printed = json.loads(shown)
    assert code == 0
    # The scrapes are at least 0.05 s apart.
    assert 0 < printed["queries"]["per_second_by_code"]["ok"] <= 10 / 0.05
    assert printed["queries"]["in_flight"] == 2
    (replica,) = printed["replicas"]
    assert (replica["service"], replica["state"]) == ("upload", "not ready")


def test_nobody_to_watch_ends_by_name() -> None:
    """The error names the option to give."""
    code, shown = _top("--once", "--metrics", NOBODY)
    assert code != 0
    assert "SIMILE_ADMIN_PORT" in shown
    assert "(unreachable)" in shown


async def test_the_screen_follows_and_survives_who_leaves() -> None:
    """The screen shows a process, then that it is away, and restores the terminal at the end."""
    out = io.StringIO()
    console = Console(file=out, force_terminal=True, width=100, height=40)
    async with serving(Health()) as url:
        watching = asyncio.create_task(screen.watch([url], 0.01, console))
        while "queries" not in out.getvalue() or "ok" not in out.getvalue():
            await asyncio.sleep(0.01)
    while "away" not in out.getvalue():
        await asyncio.sleep(0.01)
    await cancel(watching)
    enters, leaves = "\x1b[?1049h", "\x1b[?1049l"
    assert (out.getvalue().count(enters), out.getvalue().count(leaves)) == (1, 1)
