"""Stages that stop are detected in time; waiting and slow stages are not reported."""

from __future__ import annotations

import asyncio
import threading
import time

import pytest
import structlog
from prometheus_client import CollectorRegistry

from services.embedder.settings import EmbedderSettings
from services.searcher.settings import SearcherSettings
from services.shared.canary import Hysteresis
from services.shared.telemetry.health import Health, lasting
from services.shared.telemetry.loop import LoopMonitor, watched_loop
from services.shared.telemetry.watchdog import ProgressWatch, StallThresholds, Watchdog
from tests.support.clock import Clock


@pytest.fixture
def clock() -> Clock:
    """Return a clock that does not advance by itself."""
    return Clock()


@pytest.mark.parametrize("settings", [EmbedderSettings(), SearcherSettings()])
def test_wedged_work_is_unready_within_10_s_and_not_live_within_60(
    clock: Clock, settings: EmbedderSettings | SearcherSettings
) -> None:
    """By the default settings, stalled work makes a service unready, then not live."""
    health, watchdog = Health(), Watchdog("model", clock)
    patience = StallThresholds(settings.unready_after_seconds, settings.dead_after_seconds)
    patience.watch(health, "model", watchdog.stalled)
    with watchdog.work():
        clock.now += 7
        assert not health.not_ready()
        clock.now += 2
        assert health.not_ready() == {"model": "model runs for 9 s"}
        assert not health.not_live()
        clock.now += 42
        assert health.not_live() == {"model": "model runs for 51 s"}
    assert not health.not_ready()


def test_one_stuck_worker_is_seen_beside_busy_ones(clock: Clock) -> None:
    """The oldest work counts, however much newer work is done."""
    watchdog = Watchdog("search", clock)
    with watchdog.work():
        for _ in range(10):
            with watchdog.work():
                clock.now += 1
        assert watchdog.stalled(9) is not None


def test_waiting_for_work_is_no_stall(clock: Clock) -> None:
    """A stage without work may wait for any time."""
    watchdog = Watchdog("decode", clock)
    flow = ProgressWatch([watchdog], clock)
    clock.now += 10_000
    assert watchdog.stalled(8) is None
    assert flow.stalled(8) is None
    flow.taken()
    assert flow.stalled(8) is None


def test_what_is_lost_between_stages_is_seen(clock: Clock) -> None:
    """Work in flight outside of all stages is a stall, though every stage works."""
    watchdog = Watchdog("decode", clock)
    flow = ProgressWatch([watchdog], clock)
    flow.taken()
    clock.now += 5
    with watchdog.work():
        clock.now += 5
    clock.now += 7
    assert flow.stalled(8) is None
    clock.now += 2
    assert flow.stalled(8) == "1 in flight, without progress for 9 s"
    flow.settled(1)
    assert flow.stalled(8) is None


def test_a_check_that_fails_for_long_fails_for_good(clock: Clock) -> None:
    """A check that fails and recovers restarts nothing; one that keeps failing does."""
    reason: str | None = "no queue"
    check = lasting(lambda: reason, 50, clock)
    assert check() is None
    clock.now += 49
    assert check() is None
    reason = None
    assert check() is None
    reason = "no queue"
    clock.now += 49
    assert check() is None
    clock.now += 51
    assert check() == "no queue, for 51 s"


def test_a_verdict_needs_some_in_a_row() -> None:
    """Three successive failures set the verdict, and two successive successes clear it."""
    verdict = Hysteresis(failures=3, successes=2)

    def after(trials: str) -> bool:
        for trial in trials:
            verdict.note(success=trial == "+")
        return verdict.failing

    assert not after("--+--")
    assert after("-")
    assert after("+--+")
    assert not after("+")
    assert not after("--")


def test_a_loop_that_stands_still_is_seen_and_logged_once(clock: Clock) -> None:
    """The last beat can be read from any thread, and each stall is logged once with its place."""
    lags: list[float] = []
    monitor = LoopMonitor(lags.append, clock)
    here = threading.get_ident()
    with structlog.testing.capture_logs() as lines:
        monitor.look(here)
        clock.now += 9
        monitor.look(here)
        monitor.look(here)
    assert monitor.stalled(8) == "no heartbeat for 9 s"
    assert [line["action"] for line in lines] == ["event_loop_blocked"]
    assert "test_a_loop_that_stands_still" in lines[0]["where"]
    monitor.beat(due=clock.now - 8.5)
    assert monitor.stalled(8) is None
    assert lags == [8.5]


async def test_the_running_loop_beats() -> None:
    """The lag is measured while the loop is watched, and a blocked loop shows in the metric."""
    health, registry = Health(), CollectorRegistry()

    def beats(most: str = "+Inf") -> float:
        name = "simile_event_loop_lag_seconds_bucket"
        return registry.get_sample_value(name, {"le": most}) or 0.0

    async with watched_loop(health, registry, beat_seconds=0.02):
        await asyncio.sleep(0)
        time.sleep(0.15)  # noqa: ASYNC251 (the test blocks the loop)
        async with asyncio.timeout(20):
            while beats() < 2:
                await asyncio.sleep(0.01)
        assert beats("0.1") < beats()
        assert not health.not_live()
