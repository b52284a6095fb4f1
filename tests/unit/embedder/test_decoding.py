"""Tests the work queue and the decoder alone, in thread orders that are rare in an embedder."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Final

import pytest

from services.embedder.batcher import Batch, BatchPolicy
from services.embedder.decoding import Decoder
from services.embedder.job import Job
from services.embedder.models.model import Pixels
from services.embedder.work_queue import DecodeTask, WorkQueue
from services.embedder.worker import Worker
from services.shared.contracts import Box
from services.shared.errors import SimileError
from services.shared.imaging import Probe
from tests.support.embedder_parts import instruments, job
from tests.support.fake_model import LIMITS, FakeModel
from tests.support.pictures import plain_jpeg

SLOW: Final = plain_jpeg((9, 9, 9), (32, 32))
LARGE: Final = plain_jpeg((9, 9, 9), (64, 64))


def _queue() -> WorkQueue:
    policy = BatchPolicy(max_images=4, max_wait_seconds=0, workers=1, chunk_images=1)
    return WorkQueue(policy, instruments().decoding, workers_decode=False)


def _task(queue: WorkQueue) -> DecodeTask:
    task = queue.next(None)
    assert isinstance(task, DecodeTask)
    return task


def _names(jobs: list[Job]) -> list[str]:
    return [one.slip.correlation_id for one in jobs]


class _Gated(FakeModel):
    """Waits with the large image until `leave` is set."""

    def __init__(self) -> None:
        super().__init__()
        self.decoding, self.leave = threading.Event(), threading.Event()

    def prepare(
        self, image: bytes, box: Box | None = None, *, known: Probe | None = None
    ) -> Pixels:
        self.decoding.set()
        assert image != LARGE or self.leave.wait(30)
        return super().prepare(image, box, known=known)


def test_an_overdue_image_does_not_wait_for_a_large_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """An image that becomes overdue while its header is read is not queued and answered again."""
    model, queue = _Gated(), _queue()
    decoder = Decoder(model, LIMITS, queue, instruments().metrics, small_bytes=0)
    queue.put(job("large", LARGE))
    large = _task(queue)

    def memory(known: Probe, _target: int | None) -> float:
        if known.width == 32:
            # The large image is not overdue yet, since its decoding began later.
            assert queue.take_overdue(0.0) is slow
        return 1.0

    with ThreadPoolExecutor(1) as thread:
        try:
            queue.put(job("slow", SLOW))
            slow = _task(queue)
            decoded = thread.submit(decoder.decode, large)
            assert model.decoding.wait(30)
            large.started = slow.started + 60
            monkeypatch.setattr(Probe, "memory", memory)
            pixels = decoder.decode(slow)
            assert pixels is not None
            assert queue.stuck == 1
            assert not queue.put_decoded(slow, pixels)
            assert queue.stuck == 0
        finally:
            model.leave.set()
        result = decoded.result(30)
        assert result is not None
        assert queue.put_decoded(large, result)
    assert queue.take_back() == []


def test_a_second_large_image_waits_for_the_first() -> None:
    """A large image waits for another one, images behind it pass, and then it is decoded first."""
    queue = _queue()
    for name in ("a", "b", "c", "d"):
        queue.put(job(name))
    first, second = _task(queue), _task(queue)
    assert queue.start_large(first)
    assert not queue.start_large(second)
    third = _task(queue)
    assert third.job.slip.correlation_id == "c"
    assert queue.put_decoded(first, SimileError("of no interest"))
    again = _task(queue)
    assert (again.job, again.large) == (second.job, True)
    assert _names(queue.take_back()) == ["d"]


def test_an_overdue_large_image_opens_the_gate() -> None:
    """A thread that is stuck in a large image does not keep others from being decoded."""
    queue = _queue()
    for name in ("a", "b"):
        queue.put(job(name))
    stuck, other = _task(queue), _task(queue)
    assert queue.start_large(stuck)
    assert not queue.start_large(other)
    assert queue.take_overdue(-60) is stuck
    assert _task(queue).job is other.job
    assert queue.stuck == 1


def test_a_closed_queue_ends_its_threads() -> None:
    """Threads that wait for work get None."""
    queue = _queue()
    with ThreadPoolExecutor(2) as threads:
        waiting = [threads.submit(queue.next, None) for _ in range(2)]
        queue.close()
        assert [one.result(30) for one in waiting] == [None, None]


def test_interactive_images_are_decoded_first() -> None:
    """Interactive images are decoded before bulk ones, each kind in its order."""
    queue = _queue()
    for name in "AaBb":
        queue.put(job(name, interactive=name.islower()))
    assert [_task(queue).job.slip.correlation_id for _ in range(4)] == ["a", "b", "A", "B"]


def test_batches_are_for_workers() -> None:
    """A thread that only decodes gets no batch; a worker gets one as soon as an image is ready."""
    queue = _queue()
    queue.put(job("a", SLOW))
    task = _task(queue)
    pixels = FakeModel().prepare(SLOW)
    with ThreadPoolExecutor(2) as threads:
        worker = Worker(FakeModel(), instruments().metrics, instruments().model)
        batch = threads.submit(queue.next, worker)
        assert queue.put_decoded(task, pixels)
        found = batch.result(30)
        assert isinstance(found, Batch)
        assert _names(found.jobs) == ["a"]
        decoding = threads.submit(queue.next, None)
        queue.close()
        assert decoding.result(30) is None
