"""Deferred results are published once: at the worker's flush, or soon without a flush."""

from __future__ import annotations

import asyncio
from typing import Final

import pytest

from services.embedder.results import Timing
from tests.support.embedder_parts import done, published_by, settle

LONG: Final = Timing(max_defer_seconds=60.0)
SHORT: Final = Timing(max_defer_seconds=0.01)


async def test_flushed_results_are_published_at_once_and_once() -> None:
    """A flush publishes the results of its worker alone, once."""
    async with published_by(LONG) as published:
        published.publisher.defer("one", [done("a"), done("b")])
        published.publisher.defer("two", [done("c")])
        published.publisher.flush("one")
        published.publisher.flush("one")
        published.publisher.flush("three")
        await published.until("a", "b")
        published.publisher.flush("two")
        await published.until("a", "b", "c")


async def test_results_without_a_flush_are_published_soon() -> None:
    """Deferred results are published after `max_defer_seconds`; a late flush publishes nothing."""
    async with published_by(SHORT) as published:
        published.publisher.defer("one", [done("a")])
        await published.until("a")
        published.publisher.flush("one")
        await published.until("a")


async def test_nothing_is_lost_when_a_worker_never_flushes() -> None:
    """A worker's later batch publishes the batch before."""
    async with published_by(LONG) as published:
        published.publisher.defer("one", [done("a")])
        published.publisher.defer("one", [done("b")])
        await published.until("a")
        published.publisher.flush("one")
        await published.until("a", "b")


async def test_the_time_of_a_deferral_is_counted() -> None:
    """The time for which a result is deferred counts as `batch_wait`."""
    waiting = done("a")
    waiting.watch.lap("model")
    async with published_by(LONG) as published:
        published.publisher.defer("one", [waiting])
        await asyncio.sleep(0.01)
        published.publisher.flush("one")
        await published.until("a")
    assert waiting.watch.stages["batch_wait"] >= 0.009


@pytest.mark.parametrize("flushed", [True, False])
async def test_a_closed_publisher_publishes_nothing(*, flushed: bool) -> None:
    """The messages of deferred results go back to their queue."""
    async with published_by(SHORT) as published:
        published.publisher.defer("one", [done("a")])
        await settle()
        published.publisher.close()
        if flushed:
            published.publisher.flush("one")
        await asyncio.sleep(0.05)
        assert published == []
