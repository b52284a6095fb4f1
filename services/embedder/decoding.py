"""Decodes images in threads, within bounds of memory and time.

A thread can't be ended. So what takes too long is left to its thread, and a spare one goes on;
only when more are stuck than there are spares does the embedder end.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Final

import structlog

from services.embedder.job import Job
from services.embedder.metrics import EmbedderMetrics
from services.embedder.model import Pixels
from services.shared import imaging
from services.shared.contracts import Box
from services.shared.errors import DecodersStuck, DecodingTooSlow, Internal, SimileError
from services.shared.imaging import Limits
from services.shared.telemetry.watchdog import Watchdog

_log = structlog.get_logger(__name__)

SMALL_BYTES: Final = 128 * 2**20
"""What an image may take to be decoded beside others; larger ones come one at a time."""

Prepare = Callable[[bytes, Box | None], Pixels]
"""What a model makes of an image; raises SimileError."""


class Decoder:
    """So many threads, and as many spares."""

    def __init__(
        self,
        prepare: Prepare,
        limits: Limits,
        metrics: EmbedderMetrics,
        watchdog: Watchdog,
        *,
        input_size: int,
        threads: int,
        timeout_seconds: float,
    ) -> None:
        """input_size: of the model, in pixels. timeout_seconds: for one image.

        Models want a JPEG at 1.6 times their input: foreseen is what twice takes, never less.
        """
        self.threads = threads
        self._prepare = prepare
        self._limits = limits
        self._metrics = metrics
        self._watchdog = watchdog
        self._draft = 2 * input_size
        self._timeout_seconds = timeout_seconds
        self._pool = ThreadPoolExecutor(2 * threads, thread_name_prefix="decode")
        self._large = asyncio.Lock()
        self._stuck = 0

    async def decode(self, job: Job) -> None:
        """Give the job its pixels, or its error. Raises DecodersStuck."""
        job.watch.lap("embed_queue")
        made = await self._within_time(job, small=True)
        if made is None:
            async with self._large:
                job.watch.lap("embed_queue")
                made = await self._within_time(job, small=False)
        if isinstance(made, SimileError):
            job.error = made
            job.culprit = isinstance(made, DecodingTooSlow | Internal)
        else:
            job.pixels = made
        job.image = b""
        job.watch.lap("decode")

    def close(self) -> None:
        """Let the threads go; what is stuck doesn't hold up the end."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    async def _within_time(self, job: Job, *, small: bool) -> Pixels | SimileError | None:
        loop = asyncio.get_running_loop()
        made = loop.run_in_executor(self._pool, self._make, job, small)
        # Watched from here and not in the thread: what was given up is no stall any more.
        with self._watchdog.work():
            done, _ = await asyncio.wait({made}, timeout=self._timeout_seconds)
        if done:
            return made.result()
        self._stuck += 1
        self._metrics.stuck_decodes.set(self._stuck)
        made.add_done_callback(self._came_loose)
        _log.error("an image does not get decoded", action=DecodingTooSlow.code,
                   correlation_id=job.slip.correlation_id, stuck=self._stuck)  # fmt: skip
        if self._stuck > self.threads:
            # Not answered: it comes back, to an embedder that has all of its spares.
            message = f"{self._stuck} threads are stuck in images: no thread is left to decode"
            raise DecodersStuck(message)
        message = f"the image was not decoded within {self._timeout_seconds:g} s"
        return DecodingTooSlow(message)

    def _came_loose(self, _: object) -> None:
        self._stuck -= 1
        self._metrics.stuck_decodes.set(self._stuck)

    def _make(self, job: Job, small: bool) -> Pixels | SimileError | None:  # noqa: FBT001 (to a thread)
        """In a thread: the pixels, or why there are none; None for one too large to be small."""
        try:
            if small and self._size(job) > SMALL_BYTES:
                return None
            return self._prepare(job.image, job.slip.box)
        except SimileError as error:
            return error
        except Exception:  # noqa: BLE001 (one image must not end the stage for all)
            _log.exception(
                "decode failed", action=Internal.code, correlation_id=job.slip.correlation_id
            )
            return Internal("the image could not be prepared; the log says why")

    def _size(self, job: Job) -> int:
        header = imaging.sniff(job.image, self._limits)
        return imaging.memory_of(header, self._draft if job.slip.box is None else None)
