"""Work in a thread ends when its build is cancelled."""

from __future__ import annotations

import asyncio
import threading

import pytest

from services.searcher.build.build_thread import BuildThread
from services.searcher.progress import NoProgress
from services.shared.errors import BuildFailed


async def test_a_cancelled_build_waits_until_its_thread_has_ended() -> None:
    """The thread notices at its next progress, and the build ends after the thread."""
    progress = BuildThread(NoProgress())
    begun, ended = threading.Event(), threading.Event()

    def work() -> None:
        try:
            while True:
                progress.advance()
                begun.set()
        finally:
            ended.set()

    building = asyncio.create_task(progress.run(work))
    await asyncio.to_thread(begun.wait)
    building.cancel()
    with pytest.raises(asyncio.CancelledError):
        await building
    assert ended.is_set()
    with pytest.raises(BuildFailed, match="continues where it stopped"):
        progress.begin("the next stage", None)


async def test_work_without_an_interruption_completes() -> None:
    """Results and errors of the work reach the caller."""
    progress = BuildThread(NoProgress())
    assert await progress.run(divmod, 7, 2) == (3, 1)
    with pytest.raises(ZeroDivisionError):
        await progress.run(divmod, 7, 0)
