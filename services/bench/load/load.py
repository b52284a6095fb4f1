"""Puts load on a server by a number of clients or a rate, and measures.

With a rate, a request's latency counts from the time when it was due, so that a stalled server is
charged for the requests that a waiting client would not have sent (coordinated omission).
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import random
from collections.abc import Iterator
from typing import Final

from services.bench.load.http_client import Connection
from services.bench.load.outcome import Outcome, answered, timed_out, unconnected
from services.bench.load.recorder import Recorder, Watch
from services.bench.run import Run
from services.bench.target import Address, Target

__all__ = ["Target", "closed_loop", "open_loop"]

_RETRY_JITTER: Final = 0.25


async def closed_loop(
    target: Target,
    *,
    concurrency: int,
    seconds: float,
    warmup_seconds: float = 0.0,
    patient: bool = True,
    timeout_seconds: float = 10.0,
    watch: Watch | None = None,
) -> Run:
    """Run clients that send the next request when they have an answer.

    A patient client that is refused waits for Retry-After and a random addition. Requests that are
    answered within the measured time count.
    """
    recorder = Recorder(seconds=seconds, warmup_seconds=warmup_seconds, by_due=False, watch=watch)
    requests = target.requests()
    chance = random.Random()  # noqa: S311 (clients must not come back as one)

    async def run_client() -> None:
        with contextlib.closing(_Client(target.address, requests, timeout_seconds)) as client:
            while recorder.left:
                began = recorder.now
                outcome = await client.ask()
                recorder.record(began, outcome)
                if outcome.retry_seconds is not None and (patient or outcome.broken):
                    wait = outcome.retry_seconds * (1 + chance.random() * _RETRY_JITTER)
                    await asyncio.sleep(min(wait, recorder.left))

    async with asyncio.TaskGroup() as clients:
        for _ in range(concurrency):
            clients.create_task(run_client())
    return recorder.run(concurrency=concurrency)


async def open_loop(
    target: Target,
    *,
    rate: float,
    seconds: float,
    warmup_seconds: float = 0.0,
    timeout_seconds: float = 10.0,
    max_connections: int = 1024,
    watch: Watch | None = None,
) -> Run:
    """Send requests at fixed intervals, whatever their outcome.

    While all connections are busy a request waits for one, which adds to its latency. Requests that
    were due within the measured time count, whenever they end.
    """
    recorder = Recorder(seconds=seconds, warmup_seconds=warmup_seconds, by_due=True, watch=watch)
    requests = target.requests()
    free: list[_Client] = []
    limit = asyncio.Semaphore(max_connections)
    freed_at = 0.0

    async def ask(at: float) -> None:
        client = free.pop() if free else _Client(target.address, requests, timeout_seconds)
        recorder.record(at, await client.ask())
        free.append(client)
        limit.release()

    async with asyncio.TaskGroup() as asking:
        for at in _schedule(rate, recorder.end):
            if (early := at - recorder.now) > 0:
                await asyncio.sleep(early)
            # A delay by busy connections is the server's, not the generator's.
            recorder.behind(recorder.now - max(at, freed_at))
            if limit.locked():
                since = recorder.now
                await limit.acquire()
                freed_at = recorder.now
                recorder.full(freed_at - since)
            else:
                await limit.acquire()
            asking.create_task(ask(at))
    for client in free:
        client.close()
    return recorder.run(rate=rate)


def _schedule(rate: float, end: float) -> Iterator[float]:
    """Yield when requests are due, in seconds from the start."""
    return itertools.takewhile(lambda at: at < end, (number / rate for number in itertools.count()))


class _Client:
    """Sends one request at a time, and reconnects where the connection was closed."""

    def __init__(
        self, address: Address, requests: Iterator[tuple[bytes, bytes]], timeout_seconds: float
    ) -> None:
        self._address = address
        self._requests = requests
        self._timeout_seconds = timeout_seconds
        self._connection: Connection | None = None

    async def ask(self) -> Outcome:
        """Send a request and return its outcome, errors included."""
        head, body = next(self._requests)
        try:
            async with asyncio.timeout(self._timeout_seconds):
                if self._connection is None or not self._connection.usable:
                    self._connection = await Connection.open(self._address)
                return answered(await self._connection.post(head, body))
        except TimeoutError:
            self.close()
            return timed_out()
        except OSError as error:
            self.close()
            return unconnected(error)

    def close(self) -> None:
        """Close the connection."""
        if self._connection is not None:
            self._connection.close()
