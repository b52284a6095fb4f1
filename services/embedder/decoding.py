"""Decodes images in threads, within bounds of memory and time.

A thread can't be ended. So what takes too long is left to its thread, and a spare one goes on;
only when more are stuck than there are spares does the embedder end.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

import structlog

from services.embedder.job import NOBODY_WAITS, Job
from services.embedder.metrics import EmbedderMetrics
from services.embedder.model import Pixels
from services.shared import imaging
from services.shared.contracts import Box
from services.shared.errors import (
    DeadlineExceeded,
    DecodersStuck,
    DecodingTooSlow,
    Internal,
    SimileError,
)
from services.shared.imaging import Limits
from services.shared.telemetry.stopwatch import clock
from services.shared.telemetry.watchdog import Watchdog

_log = structlog.get_logger(__name__)

SMALL_BYTES: Final = 128 * 2**20
"""What an image may take to be decoded beside others; larger ones come one at a time."""

_LOOKS: Final = 10
"""For slow ones, in the time that one may take."""

_INTERACTIVE: Final = 0
_BULK: Final = 1

Prepare = Callable[[bytes, Box | None], Pixels]
"""What a model makes of an image; raises SimileError."""


@dataclass(slots=True, eq=False)
class _Piece:
    """An image in work; `watched` is its number with the watchdog."""

    job: Job
    large: bool
    watched: int
    began: float = field(default_factory=clock)


class Decoder:
    """So many threads, and as many spares; jobs wait here for them, interactive ones first."""

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
        self._threads = threads
        self._prepare = prepare
        self._limits = limits
        self._metrics = metrics
        self._watchdog = watchdog
        self._draft = 2 * input_size
        self._timeout_seconds = timeout_seconds
        self._made: Callable[[Job], None] = lambda _: None
        self._order = itertools.count()
        self._changed = threading.Condition()
        # All that follows is the threads' together, under `_changed`.
        self._waiting: list[tuple[int, int, Job]] = []
        self._large: deque[Job] = deque()
        self._in_work: set[_Piece] = set()
        self._stuck = 0
        self._closed = False
        self._fault: BaseException | None = None

    def start(self, made: Callable[[Job], None]) -> None:
        """Begin. made: gets each job, in a thread, with its pixels or its error."""
        self._made = made
        for number in range(self._threads):
            self._start_thread(number)

    def put(self, job: Job) -> None:
        """Queue a job."""
        priority = _INTERACTIVE if job.interactive else _BULK
        with self._changed:
            heapq.heappush(self._waiting, (priority, next(self._order), job))
            self._changed.notify()

    def take_back(self) -> list[Job]:
        """The jobs that wait: they are queued no more."""
        with self._changed:
            jobs = [*(job for _, _, job in self._waiting), *self._large]
            self._waiting.clear()
            self._large.clear()
        return jobs

    async def watch(self) -> None:
        """For ever: leave images that take too long to their threads.

        Raises DecodersStuck, and what a thread has died of.
        """
        while True:
            await asyncio.sleep(self._timeout_seconds / _LOOKS)
            if self._fault is not None:
                raise self._fault
            latest = clock() - self._timeout_seconds
            with self._changed:
                late = [piece for piece in self._in_work if piece.began < latest]
            for piece in late:
                self._give_up(piece)

    def close(self) -> None:
        """Let the threads go; what is stuck doesn't hold up the end."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def _start_thread(self, number: int) -> None:
        threading.Thread(target=self._work, name=f"decode {number}", daemon=True).start()

    def _work(self) -> None:
        """A thread's life."""
        try:
            self._decode()
        except BaseException as error:  # noqa: BLE001 (raised by `watch`)
            self._fault = error

    def _decode(self) -> None:
        """Decode until an image has been given up, or to the end."""
        while (piece := self._take()) is not None:
            piece.job.watch.lap("embed_queue")
            made = self._make(piece)
            if made is None:
                continue
            if not self._ended(piece):
                self._count_stuck(-1)
                return
            self._hand_on(piece.job, made)

    def _take(self) -> _Piece | None:
        """The next image that may be in work now; None once this is closed."""
        with self._changed:
            self._changed.wait_for(self._has_work)
            if self._closed:
                return None
            large = bool(self._large) and not self._large_in_work
            job = self._large.popleft() if large else heapq.heappop(self._waiting)[2]
            piece = _Piece(job, large, self._watchdog.begin())
            self._in_work.add(piece)
            return piece

    def _has_work(self) -> bool:
        return bool(self._closed or self._waiting or (self._large and not self._large_in_work))

    @property
    def _large_in_work(self) -> bool:
        return any(piece.large for piece in self._in_work)

    def _may_be_large(self, piece: _Piece) -> bool:
        """Whether it can be decoded now; else it waits for the other large one to end."""
        with self._changed:
            if piece not in self._in_work:  # given up meanwhile: another answered for it
                return True
            if not self._large_in_work:
                piece.large = True
                return True
            self._in_work.discard(piece)
            self._large.append(piece.job)
        self._watchdog.end(piece.watched)
        return False

    def _ended(self, piece: _Piece) -> bool:
        """Take the piece out of work; False where the other side did before."""
        with self._changed:
            if piece not in self._in_work:
                return False
            self._in_work.discard(piece)
            if piece.large:
                self._changed.notify()
        self._watchdog.end(piece.watched)
        return True

    def _hand_on(self, job: Job, made: Pixels | SimileError) -> None:
        if isinstance(made, SimileError):
            job.error = made
            job.culprit = isinstance(made, DecodingTooSlow | Internal)
        else:
            job.pixels = made
        job.image = b""
        job.watch.lap("decode")
        self._made(job)

    def _give_up(self, piece: _Piece) -> None:
        if not self._ended(piece):
            return
        stuck = self._count_stuck(1)
        _log.error("an image does not get decoded", action=DecodingTooSlow.code,
                   correlation_id=piece.job.slip.correlation_id, stuck=stuck)  # fmt: skip
        if stuck > self._threads:
            # Not answered: it comes back, to an embedder that has all of its spares.
            message = f"{stuck} threads are stuck in images: no thread is left to decode"
            raise DecodersStuck(message)
        self._start_thread(self._threads + stuck)
        message = f"the image was not decoded within {self._timeout_seconds:g} s"
        self._hand_on(piece.job, DecodingTooSlow(message))

    def _count_stuck(self, more: int) -> int:
        with self._changed:
            self._stuck += more
            self._metrics.stuck_decodes.set(self._stuck)
            return self._stuck

    def _make(self, piece: _Piece) -> Pixels | SimileError | None:
        """The pixels, or why there are none; None where it was set aside."""
        job = piece.job
        if job.expired:
            self._metrics.expired.labels(before="decode").inc()
            return DeadlineExceeded(NOBODY_WAITS)
        try:
            if not piece.large and self._is_large(job) and not self._may_be_large(piece):
                return None
            return self._prepare(job.image, job.slip.box)
        except SimileError as error:
            return error
        except Exception:  # noqa: BLE001 (one image must not end the stage for all)
            _log.exception(
                "decode failed", action=Internal.code, correlation_id=job.slip.correlation_id
            )
            return Internal("the image could not be prepared; the log says why")

    def _is_large(self, job: Job) -> bool:
        header = imaging.sniff(job.image, self._limits)
        target = self._draft if job.slip.box is None else None
        return imaging.memory_of(header, target) > SMALL_BYTES
