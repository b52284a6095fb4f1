"""Holds a batch's results back while its worker decodes the next one.

To send eight results takes the event loop, and with it the interpreter's lock, for some
milliseconds. A worker that decodes needs the lock twice a millisecond, and would stand still for
all of them; one that runs its model does not need it. So results go when the model runs again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Hashable, Sequence
from typing import Final, NamedTuple

from services.embedder.job import Job

_LONGEST_SECONDS: Final = 0.02
"""A batch of photographs is decoded sooner; for a larger image no result waits."""


class _Held(NamedTuple):
    jobs: Sequence[Job]
    timer: asyncio.TimerHandle


class Holding:
    """What is held for each worker; for the event loop alone."""

    def __init__(self, deliver: Callable[[Sequence[Job]], None]) -> None:
        """Deliver gets each batch that is held no more."""
        self._deliver = deliver
        self._loop = asyncio.get_running_loop()
        self._held: dict[Hashable, _Held] = {}

    def hold(self, worker: Hashable, jobs: Sequence[Job]) -> None:
        """Keep a worker's results until their `release`, and not for long."""
        self.release(worker)
        timer = self._loop.call_later(_LONGEST_SECONDS, self.release, worker)
        self._held[worker] = _Held(jobs, timer)

    def release(self, worker: Hashable) -> None:
        """Deliver what is held for a worker, if it still is."""
        held = self._held.pop(worker, None)
        if held is None:
            return
        held.timer.cancel()
        for job in held.jobs:
            job.watch.lap("batch_wait")
        self._deliver(held.jobs)

    def close(self) -> None:
        """Deliver nothing any more."""
        for held in self._held.values():
            held.timer.cancel()
        self._held.clear()
