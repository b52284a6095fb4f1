"""Measures the event loop's lag, and logs where a blocked event loop stands.

A blocked loop answers no probe either: from outside only a timeout is visible, without the cause.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
import threading
import time
import traceback
from collections.abc import AsyncIterator, Callable
from typing import Final

import structlog
from prometheus_client import CollectorRegistry, Histogram

from services.shared.lifecycle import cancel
from services.shared.telemetry.health import Health
from services.shared.telemetry.metrics import DURATION_BUCKETS
from services.shared.telemetry.watchdog import StallThresholds

_log = structlog.get_logger(__name__)

_BEAT_SECONDS: Final = 0.5
_BLOCKED_SECONDS: Final = 5.0
_THRESHOLDS: Final = StallThresholds(unready_seconds=8.0, dead_seconds=50.0)


class ProcessMetrics:
    """Defines the metrics of every process beside those of prometheus_client."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.loop_lag_seconds = Histogram(
            "simile_event_loop_lag_seconds",
            "How late the event loop ran a due callback, measured twice a second.",
            buckets=DURATION_BUCKETS,
            registry=registry,
        )


class LoopMonitor:
    """Records the heartbeats of one event loop, and reports when they stop."""

    def __init__(
        self, on_lag: Callable[[float], None], clock: Callable[[], float] = time.monotonic
    ) -> None:
        """Args: on_lag gets the seconds by which each heartbeat was late."""
        self._on_lag = on_lag
        self._clock = clock
        self._beaten = clock()
        self._logged = False

    def beat(self, due: float) -> None:
        """Record a heartbeat that was due at `due`, by the clock."""
        self._beaten = self._clock()
        self._logged = False
        self._on_lag(max(0.0, self._beaten - due))

    def stalled(self, limit_seconds: float) -> str | None:
        """Return the reason when the last heartbeat is longer ago than the limit."""
        still = self._clock() - self._beaten
        return None if still <= limit_seconds else f"no heartbeat for {still:.0f} s"

    def look(self, loop_thread: int) -> None:
        """Log once, from another thread, where a blocked loop stands."""
        if self._logged or self.stalled(_BLOCKED_SECONDS) is None:
            return
        self._logged = True
        frame = sys._current_frames().get(loop_thread)  # noqa: SLF001 (documented, for this)
        where = "".join(traceback.format_stack(frame)) if frame is not None else ""
        _log.error("the event loop is blocked", action="event_loop_blocked", where=where)

    async def run(self, beat_seconds: float = _BEAT_SECONDS) -> None:
        """Record a heartbeat after every `beat_seconds`, until cancelled."""
        while True:
            due = self._clock() + beat_seconds
            await asyncio.sleep(beat_seconds)
            self.beat(due)


@contextlib.asynccontextmanager
async def watched_loop(
    health: Health, registry: CollectorRegistry, *, beat_seconds: float = _BEAT_SECONDS
) -> AsyncIterator[None]:
    """Watch the running loop while inside, with its health checks and its metric."""
    monitor = LoopMonitor(ProcessMetrics(registry).loop_lag_seconds.observe)
    _THRESHOLDS.watch(health, "event loop", monitor.stalled)
    over, loop_thread = threading.Event(), threading.get_ident()

    def watch() -> None:
        while not over.wait(beat_seconds):
            monitor.look(loop_thread)

    threading.Thread(target=watch, name="loop monitor", daemon=True).start()
    beating = asyncio.create_task(monitor.run(beat_seconds), name="loop heartbeat")
    try:
        yield
    finally:
        over.set()
        await cancel(beating)
