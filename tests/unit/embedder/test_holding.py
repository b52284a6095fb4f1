"""What is held for a worker goes when it says so, or soon anyway, and never twice."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from services.embedder import holding
from services.embedder.holding import Holding
from services.embedder.job import Job
from tests.support.jobs import job


class _Delivered(list[str]):
    """The names of the jobs delivered."""

    def __call__(self, jobs: Sequence[Job]) -> None:
        self.extend(job.slip.correlation_id for job in jobs)


async def test_what_is_released_goes_at_once_and_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each worker has its own; who has nothing held releases nothing."""
    monkeypatch.setattr(holding, "_LONGEST_SECONDS", 0.01)
    delivered = _Delivered()
    held = Holding(delivered)
    held.hold("one", [job("a"), job("b")])
    held.hold("two", [job("c")])
    held.release("one")
    held.release("one")
    held.release("three")
    assert delivered == ["a", "b"]
    await asyncio.sleep(0.1)
    assert delivered == ["a", "b", "c"]


async def test_nothing_is_lost_when_a_worker_never_said_so() -> None:
    """The later batch pushes the earlier out."""
    delivered = _Delivered()
    held = Holding(delivered)
    held.hold("one", [job("a")])
    held.hold("one", [job("b")])
    assert delivered == ["a"]
    held.release("one")
    assert delivered == ["a", "b"]


async def test_the_time_held_is_told() -> None:
    """As a part of the wait for a batch: the job's stages leave nothing out."""
    waiting = job("a")
    waiting.watch.lap("model")
    held = Holding(_Delivered())
    held.hold("one", [waiting])
    await asyncio.sleep(0.01)
    held.release("one")
    assert waiting.watch.stages["batch_wait"] >= 0.009


async def test_once_closed_nothing_goes(monkeypatch: pytest.MonkeyPatch) -> None:
    """The embedder ends: its messages go back to their queue."""
    monkeypatch.setattr(holding, "_LONGEST_SECONDS", 0.01)
    delivered = _Delivered()
    held = Holding(delivered)
    held.hold("one", [job("a")])
    held.close()
    held.release("one")
    await asyncio.sleep(0.05)
    assert delivered == []
