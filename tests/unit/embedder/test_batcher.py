"""What makes a batch: who is there, interactive first, suspects alone."""

from __future__ import annotations

import pytest

from services.embedder.batcher import Batch, Batcher
from services.embedder.job import Job
from tests.support.jobs import job


def _batcher(
    max_batch_size: int, *, wait_seconds: float = 0, workers: int = 1, at_once: int = 1
) -> Batcher:
    return Batcher(
        max_batch_size=max_batch_size,
        max_batch_wait_seconds=wait_seconds,
        workers=workers,
        at_once=at_once,
    )


def _taken(jobs: list[Job], count: int) -> list[Batch]:
    batcher = _holding(_batcher(4), jobs)
    return [batcher.take() for _ in range(count)]


def _holding(batcher: Batcher, jobs: list[Job]) -> Batcher:
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
    """A free worker gets a single image without waiting for company."""
    batcher = _holding(_batcher(4), [job("a")])
    assert batcher.due_seconds(0) == 0
    assert _names(batcher.take()) == ["a"]


def test_without_a_job_nothing_is_due() -> None:
    """Nor while all that there is has to be prepared first."""
    batcher = _batcher(4)
    assert batcher.due_seconds(0) is None
    assert batcher.due_seconds(0, 3, urgent=True) is None


def test_who_prepares_images_itself_does_so_up_to_its_share() -> None:
    """Of six that came one of two workers prepares three, and leaves the others to the other."""
    batcher = _batcher(8, workers=2)
    for coming in (6, 5, 4):
        assert batcher.due_seconds(0, coming, urgent=True) is None
        batcher.put(job("a"))
    assert batcher.due_seconds(0, 3, urgent=True) == 0
    assert len(batcher.take(3).jobs) == 3


def test_interactive_waits_for_no_bulk() -> None:
    """Neither for bulk to be prepared, nor behind a batch of bulk that is ready."""
    bulk = [job(name, interactive=False) for name in "ABCD"]
    batcher = _holding(_batcher(4), bulk)
    assert batcher.due_seconds(0, 1, urgent=True) is None
    batcher.put(job("a"))
    assert batcher.due_seconds(0, 9) == 0
    assert _names(batcher.take(9)) == ["a", "A", "B", "C"]


def test_batches_are_full_but_not_fuller() -> None:
    """What gathered is handed out in its order, at most `max_batch_size` at a time."""
    jobs = [job(name) for name in "abcdef"]
    assert _batches(jobs, 2) == [["a", "b", "c", "d"], ["e", "f"]]


def test_interactive_goes_first_and_bulk_fills_the_rest() -> None:
    """Bulk waits for interactive, however long it has been there."""
    jobs = [job(name, interactive=False) for name in "ABC"] + [job(name) for name in "abc"]
    assert _batches(jobs, 2) == [["a", "b", "c", "A"], ["B", "C"]]


def test_a_redelivered_job_is_alone() -> None:
    """What may have killed an embedder takes no neighbours with it, on either queue."""
    jobs = [
        job("a"),
        job("b", redelivered=True),
        job("c"),
        job("D", interactive=False, redelivered=True),
        job("E", interactive=False),
    ]
    assert _batches(jobs, 5) == [["a"], ["b"], ["c"], ["D"], ["E"]]


def test_a_wait_gathers_a_full_batch() -> None:
    """With a wait asked for, a batch goes as soon as it is full, not later."""
    batcher = _holding(_batcher(2, wait_seconds=30), [_ready_at(100, "a")])
    assert batcher.due_seconds(100) == 30
    batcher.put(_ready_at(101, "b"))
    assert batcher.due_seconds(101) == 0
    assert (len(batcher.take().jobs), batcher.due_seconds(101)) == (2, None)


@pytest.mark.parametrize("coming", [0, 1])
def test_a_wait_ends(coming: int) -> None:
    """With a wait asked for, one image is a batch in the end, even when nothing else comes."""
    batcher = _holding(_batcher(2, wait_seconds=30), [_ready_at(100, "a")])
    assert batcher.due_seconds(129, coming) == 1
    assert batcher.due_seconds(130.5, coming) == 0
    batch, reason = batcher.take()
    assert (len(batch), reason) == (1, "waited")


def test_a_batch_says_why_it_goes() -> None:
    """Full, with what was there for a free worker, or alone: what an operator tunes by."""
    jobs = [job(name) for name in "abcd"] + [job("e"), job("f", redelivered=True)]
    assert [reason for _, reason in _taken(jobs, 3)] == ["full", "free", "alone"]


def test_workers_share_what_waits() -> None:
    """With two workers each takes half, so that none is idle while the other has it all."""
    batcher = _holding(_batcher(8, workers=2), [job(name) for name in "abcdef"])
    assert [len(batcher.take().jobs) for _ in range(3)] == [3, 2, 1]


def test_what_a_model_runs_together_is_not_shared_out() -> None:
    """Where four images take little longer than one, a worker takes four of them."""
    batcher = _holding(_batcher(8, workers=2, at_once=4), [job(name) for name in "abcdef"])
    assert [len(batcher.take().jobs) for _ in range(2)] == [4, 2]
