"""Watches the event loop: how late it is, and where it stands when it stands still.

A loop that is blocked answers no probe either; from outside that is a time-out. What it is blocked
by only this process can tell.
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
_PATIENCE: Final = StallThresholds(unready_seconds=8.0, dead_seconds=50.0)


class ProcessMetrics:
    """What every process measures of itself, beside what prometheus_client does."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.loop_lag_seconds = Histogram(
            "simile_event_loop_lag_seconds",
            "How late the event loop was with what was due, looked at twice a second.",
            buckets=DURATION_BUCKETS,
            registry=registry,
        )


class LoopMonitor:
    """The heartbeat of one event loop: beaten by a task of it, judged from anywhere."""

    def __init__(
        self, on_lag: Callable[[float], None], clock: Callable[[], float] = time.monotonic
    ) -> None:
        """on_lag gets the seconds by which each beat was late."""
        self._on_lag = on_lag
        self._clock = clock
        self._beaten = clock()
        self._told = False

    def beat(self, due: float) -> None:
        """The loop runs; `due` is when it should have, on the clock."""
        self._beaten = self._clock()
        self._told = False
        self._on_lag(max(0.0, self._beaten - due))

    def stalled(self, limit_seconds: float) -> str | None:
        """The reason when the last beat is longer ago than the limit."""
        still = self._clock() - self._beaten
        return None if still <= limit_seconds else f"it stood still for {still:.0f} s"

    def look(self, loop_thread: int) -> None:
        """From another thread: say once where the loop stands, when it stands still."""
        if self._told or self.stalled(_BLOCKED_SECONDS) is None:
            return
        self._told = True
        frame = sys._current_frames().get(loop_thread)  # noqa: SLF001 (documented, for this)
        where = "".join(traceback.format_stack(frame)) if frame is not None else ""
        _log.error("the event loop is blocked", action="event_loop_blocked", where=where)

    async def beat_for_ever(self) -> None:
        """Beat twice a second."""
        while True:
            due = self._clock() + _BEAT_SECONDS
            await asyncio.sleep(_BEAT_SECONDS)
            self.beat(due)


@contextlib.asynccontextmanager
async def watched_loop(health: Health, registry: CollectorRegistry) -> AsyncIterator[None]:
    """The running loop watched while inside, its checks and its metric registered."""
    monitor = LoopMonitor(ProcessMetrics(registry).loop_lag_seconds.observe)
    _PATIENCE.watch(health, "event loop", monitor.stalled)
    over, loop_thread = threading.Event(), threading.get_ident()

    def watch() -> None:
        while not over.wait(_BEAT_SECONDS):
            monitor.look(loop_thread)

    threading.Thread(target=watch, name="loop monitor", daemon=True).start()
    beating = asyncio.create_task(monitor.beat_for_ever(), name="loop heartbeat")
    try:
        yield
    finally:
        over.set()
        await cancel(beating)
