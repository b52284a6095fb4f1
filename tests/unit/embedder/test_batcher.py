"""Batches hold interactive images first, and redelivered images alone."""

from __future__ import annotations

import pytest

from services.embedder.batcher import Batch, Batcher, BatchPolicy
from services.embedder.job import Job
from tests.support.embedder_parts import job


def _batcher(
    max_images: int, *, wait_seconds: float = 0, workers: int = 1, chunk_images: int = 1
) -> Batcher:
    return Batcher(BatchPolicy(max_images, wait_seconds, workers, chunk_images))


def _taken(jobs: list[Job], count: int) -> list[Batch]:
    batcher = _filled(_batcher(4), jobs)
    return [batcher.take() for _ in range(count)]


def _filled(batcher: Batcher, jobs: list[Job]) -> Batcher:
    for one in jobs:
        batcher.put(one)
    return batcher


def _batches(jobs: list[Job], count: int) -> list[list[str]]:
    return [_names(batch) for batch in _taken(jobs, count)]


def _names(batch: Batch) -> list[str]:
    return [job.slip.correlation_id for job in batch.jobs]


def _ready_at(seconds: float, name: str) -> Job:
    made = job(name)
    made.watch.lap("decode", seconds)
    return made


def test_one_job_is_a_batch_at_once() -> None:
    """A free worker gets a single image without a wait."""
    batcher = _filled(_batcher(4), [job("a")])
    assert batcher.due_seconds(0) == 0
    assert _names(batcher.take()) == ["a"]


def test_without_a_job_nothing_is_due() -> None:
    """No batch is due while all images must be decoded first."""
    batcher = _batcher(4)
    assert batcher.due_seconds(0) is None
    assert batcher.due_seconds(0, 3, urgent=True) is None


def test_a_worker_that_decodes_does_so_up_to_its_share() -> None:
    """Of six images each of two workers decodes three."""
    batcher = _batcher(8, workers=2)
    for coming in (6, 5, 4):
        assert batcher.due_seconds(0, coming, urgent=True) is None
        batcher.put(job("a"))
    assert batcher.due_seconds(0, 3, urgent=True) == 0
    assert len(batcher.take(3).jobs) == 3


def test_interactive_waits_for_no_bulk() -> None:
    """Interactive images wait neither for bulk to be decoded nor behind a batch of bulk."""
    bulk = [job(name, interactive=False) for name in "ABCD"]
    batcher = _filled(_batcher(4), bulk)
    assert batcher.due_seconds(0, 1, urgent=True) is None
    batcher.put(job("a"))
    assert batcher.due_seconds(0, 9) == 0
    assert _names(batcher.take(9)) == ["a", "A", "B", "C"]


def test_batches_hold_at_most_the_maximum() -> None:
    """Images are taken in their order, at most `max_images` in a batch."""
    jobs = [job(name) for name in "abcdef"]
    assert _batches(jobs, 2) == [["a", "b", "c", "d"], ["e", "f"]]


def test_interactive_goes_first_and_bulk_fills_the_rest() -> None:
    """Bulk images wait for interactive ones, however early they came."""
    jobs = [job(name, interactive=False) for name in "ABC"] + [job(name) for name in "abc"]
    assert _batches(jobs, 2) == [["a", "b", "c", "A"], ["B", "C"]]


def test_a_redelivered_job_is_alone() -> None:
    """An image that may have killed an embedder runs alone, from either queue."""
    jobs = [
        job("a"),
        job("b", redelivered=True),
        job("c"),
        job("D", interactive=False, redelivered=True),
        job("E", interactive=False),
    ]
    assert _batches(jobs, 5) == [["a"], ["b"], ["c"], ["D"], ["E"]]


def test_a_wait_gathers_a_full_batch() -> None:
    """With a maximum wait set, a batch starts as soon as it is full."""
    batcher = _filled(_batcher(2, wait_seconds=30), [_ready_at(100, "a")])
    assert batcher.due_seconds(100) == 30
    batcher.put(_ready_at(101, "b"))
    assert batcher.due_seconds(101) == 0
    assert (len(batcher.take().jobs), batcher.due_seconds(101)) == (2, None)


@pytest.mark.parametrize("coming", [0, 1])
def test_a_wait_ends(coming: int) -> None:
    """With a maximum wait set, a single image is a batch once that wait is over."""
    batcher = _filled(_batcher(2, wait_seconds=30), [_ready_at(100, "a")])
    assert batcher.due_seconds(129, coming) == 1
    assert batcher.due_seconds(130.5, coming) == 0
    batch, reason = batcher.take()
    assert (len(batch), reason) == (1, "waited")


def test_a_batch_says_why_it_starts() -> None:
    """A batch has a reason, which operators tune by: full, a free worker, or alone."""
    jobs = [job(name) for name in "abcd"] + [job("e"), job("f", redelivered=True)]
    assert [reason for _, reason in _taken(jobs, 3)] == ["full", "free", "alone"]


def test_workers_share_the_waiting_images() -> None:
    """Two workers take half of the images each, so that neither is idle."""
    batcher = _filled(_batcher(8, workers=2), [job(name) for name in "abcdef"])
    assert [len(batcher.take().jobs) for _ in range(3)] == [3, 2, 1]


def test_images_of_one_chunk_are_not_shared_out() -> None:
    """A worker takes four images where four take little longer than one."""
    batcher = _filled(_batcher(8, workers=2, chunk_images=4), [job(name) for name in "abcdef"])
    assert [len(batcher.take().jobs) for _ in range(2)] == [4, 2]
