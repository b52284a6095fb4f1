"""Gives an embedder's threads their work: images to decode, and batches of decoded images.

    put -> next: DecodeTask -> put_decoded -> next: Batch

Interactive images come before bulk images at both places. An image that waited for the gate of
large images comes before all others, even where it is a bulk image: its header was read already.
Every method is thread-safe; the one lock and all state under it belong to `WorkQueue`.
"""

from __future__ import annotations

import heapq
import itertools
import threading
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from services.embedder.batcher import Batch, Batcher, BatchPolicy
from services.embedder.job import Job
from services.embedder.models.model import Pixels
from services.shared.errors import SimileError
from services.shared.telemetry.stopwatch import clock
from services.shared.telemetry.watchdog import Watchdog

if TYPE_CHECKING:
    from services.embedder.worker import Worker

_INTERACTIVE: Final = 0
_BULK: Final = 1


@dataclass(slots=True, eq=False)
class DecodeTask:
    """An image that a thread decodes.

    Attributes:
        job: the image.
        worker: the worker whose thread decodes; None in a thread that only decodes.
        watched: the task's number in the watchdog.
        large: the task holds the gate for large images.
        started: when a thread took the image, by `clock`.
    """

    job: Job
    worker: Worker | None
    watched: int
    large: bool
    started: float = field(default_factory=clock)


class WorkQueue:
    """Holds the images of one embedder until a thread takes them."""

    def __init__(self, policy: BatchPolicy, watchdog: Watchdog, *, workers_decode: bool) -> None:
        """Create an empty queue.

        Args:
            policy: the bounds of a batch.
            watchdog: sees how long each image is being decoded.
            workers_decode: workers take images to decode, not only batches; no other thread does.
        """
        self._watchdog = watchdog
        self._workers_decode = workers_decode
        self._lock = threading.Lock()
        self._image_waits = threading.Condition(self._lock)
        self._batch_waits = threading.Condition(self._lock)
        self._order = itertools.count()
        self._images: list[tuple[int, int, Job]] = []
        self._large_images: deque[Job] = deque()
        self._decoding: set[DecodeTask] = set()
        self._stuck: set[DecodeTask] = set()
        self._batcher = Batcher(policy)
        self._closed = False

    def put(self, job: Job) -> None:
        """Add an image to decode; the consumers' prefetch bounds how many there are."""
        priority = _INTERACTIVE if job.interactive else _BULK
        with self._lock:
            heapq.heappush(self._images, (priority, next(self._order), job))
            self._image_waits.notify()

    def next(self, worker: Worker | None) -> DecodeTask | Batch | None:
        """Wait for work that the calling thread can do.

        Args:
            worker: the worker whose thread calls; None in a thread that only decodes.

        Returns:
            A batch for the worker's model, or an image to decode; None once the queue is closed.
        """
        decodes = worker is None or self._workers_decode
        with self._lock:
            while not self._closed:
                coming = self._decodable if decodes else 0
                wait_seconds = None
                if worker is not None:
                    urgent = decodes and self._interactive_next
                    wait_seconds = self._batcher.due_seconds(clock(), coming, urgent=urgent)
                    if wait_seconds is not None and wait_seconds <= 0:
                        return self._batcher.take(coming)
                if coming:
                    return self._start(worker)
                (self._image_waits if decodes else self._batch_waits).wait(wait_seconds)
            return None

    def start_large(self, task: DecodeTask) -> bool:
        """Pass the gate for large images, which are decoded one at a time.

        An overdue task passes without taking the gate: its image is answered already, and must not
        be queued again.

        Returns:
            True if the task may go on. False ends the task: its image waits until the gate is free,
            and `next` then returns the image as a new task.
        """
        with self._lock:
            if task.large or task in self._stuck:
                return True
            if not self._gate_taken:
                task.large = True
                return True
            self._remove(task)
            self._large_images.append(task.job)
            return False

    def put_decoded(self, task: DecodeTask, decoded: Pixels | SimileError) -> bool:
        """End a task; an image with pixels waits for a batch from now on.

        Args:
            task: the task that the calling thread has finished.
            decoded: H,W,3 (uint8), or the image's error, which the caller publishes.

        Returns:
            False when `take_overdue` ended the task before: the result is dropped, and a spare
            thread has this one's place.
        """
        with self._lock:
            if task in self._stuck:
                self._stuck.remove(task)
                return False
            self._remove(task)
            task.job.set_decoded(decoded)
            if task.job.error is None:
                self._batcher.put(task.job)
                self._batch_waits.notify()
            return True

    def take_overdue(self, timeout_seconds: float) -> DecodeTask | None:
        """End a task that takes longer than the timeout, and count its thread as stuck.

        Returns:
            The task, whose image the caller answers; None when no task is overdue.
        """
        latest = clock() - timeout_seconds
        with self._lock:
            task = next((one for one in self._decoding if one.started < latest), None)
            if task is not None:
                self._remove(task)
                self._stuck.add(task)
            return task

    def take_back(self) -> list[Job]:
        """Remove and return the images that no thread has taken, or that wait for the gate."""
        with self._lock:
            jobs = [*(job for _, _, job in self._images), *self._large_images]
            self._images.clear()
            self._large_images.clear()
        return jobs

    def close(self) -> None:
        """End every `next` with None."""
        with self._lock:
            self._closed = True
            self._image_waits.notify_all()
            self._batch_waits.notify_all()

    @property
    def stuck(self) -> int:
        """The number of threads that still decode an overdue image."""
        return len(self._stuck)

    @property
    def decodable(self) -> int:
        """The number of images that a thread could start to decode now."""
        with self._lock:
            return self._decodable

    @property
    def decoded(self) -> int:
        """The number of decoded images that wait for a worker."""
        with self._lock:
            return len(self._batcher)

    @property
    def _decodable(self) -> int:
        return len(self._images) + self._large_next

    @property
    def _interactive_next(self) -> bool:
        return bool(self._images) and self._images[0][0] == _INTERACTIVE

    @property
    def _large_next(self) -> bool:
        return bool(self._large_images) and not self._gate_taken

    @property
    def _gate_taken(self) -> bool:
        return any(task.large for task in self._decoding)

    def _start(self, worker: Worker | None) -> DecodeTask:
        large = self._large_next
        job = self._large_images.popleft() if large else heapq.heappop(self._images)[2]
        task = DecodeTask(job, worker, self._watchdog.begin(), large)
        self._decoding.add(task)
        return task

    def _remove(self, task: DecodeTask) -> None:
        self._decoding.remove(task)
        self._watchdog.end(task.watched)
        if task.large and self._large_images:
            self._image_waits.notify()
