"""Decodes images within bounds of memory and time; the threads are the crew's.

A thread can't be ended. So what takes too long is left to its thread, and a spare one goes on;
only when more are stuck than there are spares does the embedder end.
"""

from __future__ import annotations

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
from services.embedder.models.model import Pixels
from services.embedder.worker import Worker
from services.shared import imaging
from services.shared.contracts import Box
from services.shared.errors import (
    DeadlineExceeded,
    DecoderCrashed,
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


class GivenUp(Exception):
    """The thread was too long in one image: another has its place."""


@dataclass(slots=True, eq=False)
class Piece:
    """An image in work; `watched` is its number with the watchdog.

    worker: whose thread decodes it, and has no time for its model meanwhile.
    """

    job: Job
    large: bool
    watched: int
    worker: Worker | None
    began: float = field(default_factory=clock)


class Decoder:
    """Jobs that wait to be decoded, interactive ones first, and those in work."""

    def __init__(
        self,
        prepare: Prepare,
        limits: Limits,
        metrics: EmbedderMetrics,
        watchdog: Watchdog,
        *,
        input_size: int,
        timeout_seconds: float,
    ) -> None:
        """input_size: of the model, in pixels. timeout_seconds: for one image.

        Models want a JPEG at 1.6 times their input: foreseen is what twice takes, never less.
        """
        self._prepare = prepare
        self._limits = limits
        self._metrics = metrics
        self._watchdog = watchdog
        self._draft = 2 * input_size
        self._timeout_seconds = timeout_seconds
        self._order = itertools.count()
        self.lock = threading.Lock()
        """Held by who calls what says so."""
        self.arrived = threading.Condition(self.lock)
        """Told when there is something to take."""
        # All that follows is the threads' together, under `lock`.
        self._waiting: list[tuple[int, int, Job]] = []
        self._large: deque[Job] = deque()
        self._in_work: set[Piece] = set()
        self._stuck = 0

    def put(self, job: Job) -> None:
        """Queue a job."""
        priority = _INTERACTIVE if job.interactive else _BULK
        with self.lock:
            heapq.heappush(self._waiting, (priority, next(self._order), job))
            self.arrived.notify()

    def take_back(self) -> list[Job]:
        """The jobs that wait: they are queued no more."""
        with self.lock:
            jobs = [*(job for _, _, job in self._waiting), *self._large]
            self._waiting.clear()
            self._large.clear()
        return jobs

    @property
    def waiting(self) -> int:
        """How many may be taken now; with the lock."""
        return len(self._waiting) + self._may_take_large

    def any_waiting(self) -> bool:
        """Whether one may be taken now."""
        with self.lock:
            return self.waiting > 0

    @property
    def urgent(self) -> bool:
        """Whether the next is interactive; with the lock."""
        return bool(self._waiting) and self._waiting[0][0] == _INTERACTIVE

    def take(self, worker: Worker | None) -> Piece:
        """The next of those that are `waiting`; with the lock. worker: whose thread takes it."""
        large = self._may_take_large
        job = self._large.popleft() if large else heapq.heappop(self._waiting)[2]
        piece = Piece(job, large, self._watchdog.begin(), worker)
        self._in_work.add(piece)
        return piece

    def decode(self, piece: Piece) -> Job | None:
        """The job, with its pixels or its error; None where it was set aside.

        Raises GivenUp where it took so long that it was answered meanwhile.
        """
        piece.job.watch.lap("embed_queue")
        made = self._make(piece)
        if made is None:
            return None
        if not self._ended(piece):
            self._count_stuck(-1)
            raise GivenUp
        return _made(piece.job, made)

    @property
    def look_seconds(self) -> float:
        """How often to look for those that are `late`."""
        return self._timeout_seconds / _LOOKS

    def late(self) -> list[Piece]:
        """What takes too long and is in work no more: its thread is left to it."""
        latest = clock() - self._timeout_seconds
        with self.lock:
            late = [piece for piece in self._in_work if piece.began < latest]
        return [piece for piece in late if self._ended(piece)]

    def give_up(self, piece: Piece, most: int) -> Job:
        """The job of one that is `late`, with its error.

        Raises DecodersStuck when with its own more than `most` threads are stuck.
        """
        stuck = self._count_stuck(1)
        _log.error("an image does not get decoded", action=DecodingTooSlow.code,
                   correlation_id=piece.job.slip.correlation_id, stuck=stuck)  # fmt: skip
        if stuck > most:
            # Not answered: it comes back, to an embedder that has all of its spares.
            message = f"{stuck} threads are stuck in images: no thread is left to decode"
            raise DecodersStuck(message)
        message = f"the image was not decoded within {self._timeout_seconds:g} s"
        return _made(piece.job, DecodingTooSlow(message))

    @property
    def _may_take_large(self) -> bool:
        return bool(self._large) and not self._large_in_work

    @property
    def _large_in_work(self) -> bool:
        return any(piece.large for piece in self._in_work)

    def _may_be_large(self, piece: Piece) -> bool:
        """Whether it can be decoded now; else it waits for the other large one to end."""
        with self.lock:
            if piece not in self._in_work:  # given up meanwhile: another answered for it
                return True
            if not self._large_in_work:
                piece.large = True
                return True
            self._in_work.discard(piece)
            self._large.append(piece.job)
        self._watchdog.end(piece.watched)
        return False

    def _ended(self, piece: Piece) -> bool:
        """Take the piece out of work; False where the other side did before."""
        with self.lock:
            if piece not in self._in_work:
                return False
            self._in_work.discard(piece)
            if piece.large and self._large:
                self.arrived.notify()
        self._watchdog.end(piece.watched)
        return True

    def _count_stuck(self, more: int) -> int:
        with self.lock:
            self._stuck += more
            self._metrics.stuck_decodes.set(self._stuck)
            return self._stuck

    def _make(self, piece: Piece) -> Pixels | SimileError | None:
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
        header = imaging.sniff_start(job.image, self._limits)
        header = header or imaging.sniff(job.image, self._limits)
        target = self._draft if job.slip.box is None else None
        return imaging.memory_of(header, target) > SMALL_BYTES


def _made(job: Job, made: Pixels | SimileError) -> Job:
    if isinstance(made, SimileError):
        job.error = made
        job.culprit = isinstance(made, DecodingTooSlow | DecoderCrashed | Internal)
    else:
        job.pixels = made
    job.image = b""
    job.watch.lap("decode")
    return job
