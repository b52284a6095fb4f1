"""What makes a batch: who is there, interactive first, suspects alone."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

from services.embedder.batcher import Batch, Batcher
from services.embedder.job import Job
from services.shared.contracts import Slip


class _Delivery:
    type = "simile.v1.EmbedRequest"
    body = b""
    received = 0.0
    headers: dict[str, str] = {}  # noqa: RUF012 (the port's shape; nobody writes it)

    redelivered = False
    redeliveries = 0

    def ack(self) -> None:
        """Nothing to settle here."""

    def reject(self, *, requeue: bool) -> None:
        """Nothing to settle here."""


def _job(name: str, *, interactive: bool = True, redelivered: bool = False) -> Job:
    slip = Slip(correlation_id=name, reply_to="next", final_reply_to="asker")
    return Job(slip, b"", _Delivery(), interactive, deaths=int(redelivered))


def _batcher(
    max_batch_size: int, *, wait_seconds: float = 0, workers: int = 1, at_once: int = 1
) -> Batcher:
    return Batcher(
        max_batch_size=max_batch_size,
        max_batch_wait_seconds=wait_seconds,
        workers=workers,
        at_once=at_once,
    )


def _take(batcher: Batcher) -> Batch:
    batch = batcher.take()
    assert batch is not None
    return batch


def _taken(jobs: list[Job], count: int) -> list[Batch]:
    batcher = _batcher(4)
    for job in jobs:
        batcher.put(job)
    return [_take(batcher) for _ in range(count)]


def _batches(jobs: list[Job], count: int) -> list[list[str]]:
    taken = _taken(jobs, count)
    return [[job.slip.correlation_id for job in batch] for batch, _ in taken]


def test_one_job_is_a_batch_at_once() -> None:
    """A free worker gets a single image without waiting for company."""
    assert _batches([_job("a")], 1) == [["a"]]


def test_a_waiting_worker_gets_the_next_job() -> None:
    """Who asks before there is anything gets the first job that comes."""
    batcher = _batcher(4)
    with ThreadPoolExecutor(1) as worker:
        taking = worker.submit(_take, batcher)
        batcher.put(_job("a"))
        batch, _ = taking.result(10)
    assert [job.slip.correlation_id for job in batch] == ["a"]


def test_batches_are_full_but_not_fuller() -> None:
    """What gathered is handed out in its order, at most `max_batch_size` at a time."""
    jobs = [_job(name) for name in "abcdef"]
    assert _batches(jobs, 2) == [["a", "b", "c", "d"], ["e", "f"]]


def test_interactive_goes_first_and_bulk_fills_the_rest() -> None:
    """Bulk waits for interactive, however long it has been there."""
    jobs = [_job(name, interactive=False) for name in "ABC"] + [_job(name) for name in "abc"]
    assert _batches(jobs, 2) == [["a", "b", "c", "A"], ["B", "C"]]


def test_a_redelivered_job_is_alone() -> None:
    """What may have killed an embedder takes no neighbours with it, on either queue."""
    jobs = [
        _job("a"),
        _job("b", redelivered=True),
        _job("c"),
        _job("D", interactive=False, redelivered=True),
        _job("E", interactive=False),
    ]
    assert _batches(jobs, 5) == [["a"], ["b"], ["c"], ["D"], ["E"]]


def test_a_wait_gathers_a_full_batch() -> None:
    """With a wait asked for, a worker takes as soon as the batch is full, not later."""
    batcher = _batcher(2, wait_seconds=30)
    batcher.put(_job("a"))
    with ThreadPoolExecutor(1) as worker:
        taking = worker.submit(_take, batcher)
        batcher.put(_job("b"))
        batch, reason = taking.result(10)
    assert (len(batch), reason) == (2, "full")


def test_a_wait_ends() -> None:
    """With a wait asked for, one image is still a batch when nothing else comes."""
    batcher = _batcher(2, wait_seconds=0.001)
    batcher.put(_job("a"))
    batch, reason = _take(batcher)
    assert (len(batch), reason) == (1, "waited")


def test_a_batch_says_why_it_goes() -> None:
    """Full, with what was there for a free worker, or alone: what an operator tunes by."""
    jobs = [_job(name) for name in "abcd"] + [_job("e"), _job("f", redelivered=True)]
    assert [reason for _, reason in _taken(jobs, 3)] == ["full", "free", "alone"]


def test_who_waits_is_let_go_when_it_closes() -> None:
    """A worker that waits gets None, and so does who asks later, whatever is there."""
    batcher = _batcher(4)
    with ThreadPoolExecutor(1) as worker:
        taking = worker.submit(batcher.take)
        batcher.close()
        assert taking.result(10) is None
    batcher.put(_job("a"))
    assert batcher.take() is None


def test_workers_share_what_waits() -> None:
    """With two workers each takes half, so that none is idle while the other has it all."""
    batcher = _batcher(8, workers=2)
    for name in "abcdef":
        batcher.put(_job(name))
    assert [len(_take(batcher).jobs) for _ in range(3)] == [3, 2, 1]


def test_what_a_model_runs_together_is_not_shared_out() -> None:
    """Where four images take little longer than one, a worker takes four of them."""
    batcher = _batcher(8, workers=2, at_once=4)
    for name in "abcdef":
        batcher.put(_job(name))
    assert [len(_take(batcher).jobs) for _ in range(2)] == [4, 2]
