"""The threads of an embedder: they decode, run the model, or do both, and take what is there.

Beside a GPU they are apart, so that decoding overlaps the model's work. On CPUs each worker decodes
for itself: more threads than cores would only take turns, and cold caches, on the same cores.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future

from services.embedder.batcher import Batch, Batcher
from services.embedder.decoding import Decoder, GivenUp, Piece
from services.embedder.job import Job
from services.embedder.worker import Worker
from services.shared.telemetry.stopwatch import clock

Embed = Callable[[Worker, Batch], None]
"""Runs a batch through a worker's model."""


class Crew:
    """A thread for each worker, and those that decode beside them."""

    def __init__(
        self,
        decoder: Decoder,
        batcher: Batcher,
        workers: Sequence[Worker],
        *,
        decode_threads: int,
        embed: Embed,
        on_failed: Callable[[Job], None],
        on_death: Callable[[BaseException], None],
    ) -> None:
        """decode_threads: beside the workers; with none they decode for themselves.

        embed and on_death are called in a thread; on_death gets what it died of. on_failed gets
        each job that could not be decoded, in a thread or in the event loop.
        """
        self._decoder = decoder
        self._batcher = batcher
        self._workers = workers
        self._decode_threads = decode_threads
        self._embed = embed
        self._on_failed = on_failed
        self._on_death = on_death
        self._prepared = threading.Condition(decoder.lock)
        self._closed = False

    @property
    def decoding(self) -> int:
        """How many images may be decoded at a time."""
        return self._decode_threads or len(self._workers)

    async def start(self) -> None:
        """Begin, every worker with a run of its own, so that the first query isn't the slow one."""
        warm = [Future[None]() for _ in self._workers]
        for worker, done in zip(self._workers, warm, strict=True):
            self._start_thread(worker, decodes=self._decode_threads == 0, warm=done)
        await asyncio.gather(*map(asyncio.wrap_future, warm))
        for _ in range(self._decode_threads):
            self._start_thread(None, decodes=True)

    async def watch(self) -> None:
        """For ever: leave images that take too long to their threads. Raises DecodersStuck."""
        while True:
            await asyncio.sleep(self._decoder.look_seconds)
            for piece in self._decoder.late():
                job = self._decoder.give_up(piece, self.decoding)
                self._start_thread(piece.worker, decodes=True)
                self._on_failed(job)

    def close(self) -> None:
        """Let the threads go; what is stuck doesn't hold up the end."""
        with self._decoder.lock:
            self._closed = True
            self._decoder.arrived.notify_all()
            self._prepared.notify_all()

    def _start_thread(
        self, worker: Worker | None, *, decodes: bool, warm: Future[None] | None = None
    ) -> None:
        arguments = (worker, decodes, warm)
        name = "decode" if worker is None else "model"
        threading.Thread(target=self._live, args=arguments, name=name, daemon=True).start()

    def _live(self, worker: Worker | None, decodes: bool, warm: Future[None] | None) -> None:  # noqa: FBT001 (a thread takes its arguments by place)
        """A thread's life."""
        if worker is not None and warm is not None and not _warmed(worker, warm):
            return
        try:
            while (work := self._next(worker, decodes=decodes)) is not None:
                if isinstance(work, Piece):
                    self._decode(work)
                elif worker is not None:
                    self._embed(worker, work)
        except GivenUp:
            return
        except BaseException as error:  # noqa: BLE001 (a dead thread must be noticed)
            self._on_death(error)

    def _next(self, worker: Worker | None, *, decodes: bool) -> Piece | Batch | None:
        """What this thread can do, as soon as there is anything; None once this is closed."""
        with self._decoder.lock:
            while not self._closed:
                coming = self._decoder.waiting if decodes else 0
                wait = None
                if worker is not None:
                    urgent = decodes and self._decoder.urgent
                    wait = self._batcher.due_seconds(clock(), coming, urgent=urgent)
                    if wait is not None and wait <= 0:
                        return self._batcher.take(coming)
                if coming:
                    return self._decoder.take(worker)
                (self._decoder.arrived if decodes else self._prepared).wait(wait)
            return None

    def _decode(self, piece: Piece) -> None:
        began = clock()
        job = self._decoder.decode(piece)
        if piece.worker is not None:
            piece.worker.worked(clock() - began)
        if job is None:
            return
        if job.error is not None:
            self._on_failed(job)
            return
        with self._decoder.lock:
            self._batcher.put(job)
            self._prepared.notify()


def _warmed(worker: Worker, done: Future[None]) -> bool:
    """Run the model once; whether it could be."""
    done.set_running_or_notify_cancel()  # who waits for it may leave, it can't be cancelled
    try:
        worker.warm()
    except BaseException as error:  # noqa: BLE001 (raised where it is waited for)
        done.set_exception(error)
        return False
    done.set_result(None)
    return True
