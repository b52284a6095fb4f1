"""Measures runs: their load, and the resources that the services used meanwhile."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass

from services.bench.load.load import closed_loop, open_loop
from services.bench.load.recorder import Watch
from services.bench.load.scrape import Spent, fetch, spent
from services.bench.run import Run
from services.bench.target import Target
from services.shared.lifecycle import cancel


@dataclass(frozen=True, slots=True)
class Plan:
    """Describes how to measure; `metrics` are the admin addresses of services."""

    seconds: float
    warmup_seconds: float
    timeout_seconds: float = 10.0
    patient: bool = True
    max_connections: int = 1024
    metrics: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class Measured:
    """Holds a run and the used resources; `spent` is None without metrics."""

    run: Run
    spent: Spent | None = None

    @property
    def cpu_seconds_per_image(self) -> Mapping[str, float]:
        """CPU seconds of each process for a served image; refusals are included."""
        served = len(self.run.served)
        if self.spent is None or not served:
            return {}
        return {name: seconds / served for name, seconds in self.spent.cpu_seconds.items()}

    def cpu_seconds_of(self, service: str) -> float:
        """Return the CPU seconds of a service for a served image; NaN where they are not known."""
        seconds = self.spent.of_service(service) if self.spent is not None else None
        served = len(self.run.served)
        return math.nan if seconds is None or not served else seconds / served


@dataclass(frozen=True, slots=True)
class Meter:
    """Measures a target by a plan; `watch` gets every sample."""

    target: Target
    plan: Plan
    watch: Watch | None = None

    async def closed(self, concurrency: int) -> Measured:
        """Measure with a number of clients."""
        plan = self.plan
        return await self._measured(
            closed_loop(
                self.target,
                concurrency=concurrency,
                seconds=plan.seconds,
                warmup_seconds=plan.warmup_seconds,
                patient=plan.patient,
                timeout_seconds=plan.timeout_seconds,
                watch=self.watch,
            )
        )

    async def open(self, rate: float, seconds: float | None = None) -> Measured:
        """Measure a rate in requests per second, for the plan's time by default."""
        plan = self.plan
        return await self._measured(
            open_loop(
                self.target,
                rate=rate,
                seconds=plan.seconds if seconds is None else seconds,
                warmup_seconds=plan.warmup_seconds,
                timeout_seconds=plan.timeout_seconds,
                max_connections=plan.max_connections,
                watch=self.watch,
            )
        )

    async def _measured(self, load: Awaitable[Run]) -> Measured:
        """Run the load, and read the metrics after the warm-up and at the end.

        Raises Unreachable where a service can't be read any more.
        """
        if not self.plan.metrics:
            return Measured(await load)
        reading = asyncio.create_task(self._read_when_warm())
        try:
            run = await load
            before = await reading
        finally:
            await cancel(reading)
        return Measured(run, spent(before, await fetch(self.plan.metrics)))

    async def _read_when_warm(self) -> Mapping[str, str]:
        await asyncio.sleep(self.plan.warmup_seconds)
        return await fetch(self.plan.metrics)


MeasureRate = Callable[[float, float], Awaitable[Measured]]
"""Measures at a rate (requests a second), for so many seconds."""
MeasureClients = Callable[[int], Awaitable[Measured]]
"""Measures with so many clients."""
