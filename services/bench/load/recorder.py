"""Records the samples of a run without those of the warm-up."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from services.bench.load.outcome import Outcome
from services.bench.run import Run, Sample

Watch = Callable[[Sample], None]
"""Gets every sample at once, for a progress bar."""


class Recorder:
    """Records the samples of a run by its clock."""

    def __init__(
        self, *, seconds: float, warmup_seconds: float, by_due: bool, watch: Watch | None
    ) -> None:
        """Start the clock.

        Args:
            seconds: the measured time.
            warmup_seconds: the time before it.
            by_due: count requests that were due in the measured time; by default those that ended.
            watch: gets every sample.
        """
        # Not the loop's clock: uvloop's goes by milliseconds.
        self._clock = time.perf_counter
        self._begin = self._clock()
        self._seconds = seconds
        self._warmup_seconds = warmup_seconds
        self._by_due = by_due
        self._watch = watch
        self._samples: list[Sample] = []
        self._behind_seconds = 0.0
        self._full_seconds = 0.0
        self._cpu_seconds = time.process_time()
        self._warm = asyncio.get_running_loop().call_later(warmup_seconds, self._start_cpu)

    @property
    def now(self) -> float:
        """Seconds from the start, warm-up included."""
        return self._clock() - self._begin

    @property
    def end(self) -> float:
        """When the last request may begin, on the same clock."""
        return self._warmup_seconds + self._seconds

    @property
    def left(self) -> float:
        """Seconds to the end; 0 after it."""
        return max(0.0, self.end - self.now)

    def behind(self, seconds: float) -> None:
        """Record by how many seconds the generator itself was late."""
        if self.now >= self._warmup_seconds:
            self._behind_seconds = max(self._behind_seconds, seconds)

    def full(self, seconds: float) -> None:
        """Record for how many seconds no connection was free, until now."""
        self._full_seconds += min(seconds, max(0.0, self.now - self._warmup_seconds))

    def record(self, at: float, outcome: Outcome) -> None:
        """Record a request that began, or was due, at `at`, and has ended now."""
        now = self.now
        counted = at if self._by_due else now
        if self._warmup_seconds <= counted <= self.end:
            sample = Sample(at - self._warmup_seconds, now - at, outcome.code, outcome.stages)
            self._samples.append(sample)
            if self._watch is not None:
                self._watch(sample)

    def run(self, *, concurrency: int | None = None, rate: float | None = None) -> Run:
        """Return the run."""
        self._warm.cancel()
        return Run(
            seconds=self._seconds,
            samples=self._samples,
            client_cpu_seconds=time.process_time() - self._cpu_seconds,
            concurrency=concurrency,
            rate=rate,
            behind_seconds=self._behind_seconds,
            full_seconds=self._full_seconds,
        )

    def _start_cpu(self) -> None:
        self._cpu_seconds = time.process_time()
