"""An asynchronous service on an event loop in a thread of its own, for tests that have none."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import AbstractAsyncContextManager
from typing import TypeVar

_Value = TypeVar("_Value")

_SECONDS = 60.0


@contextlib.contextmanager
def threaded(manager: AbstractAsyncContextManager[_Value]) -> Iterator[_Value]:
    """What the manager gives, which lives until the end; an error of its start is raised here."""
    begun: Future[_Value] = Future()
    loop, ended = asyncio.new_event_loop(), asyncio.Event()

    async def live() -> None:
        try:
            async with manager as value:
                begun.set_result(value)
                await ended.wait()
        except BaseException as error:
            if not begun.done():
                begun.set_exception(error)
            raise

    def run() -> None:
        with asyncio.Runner(loop_factory=lambda: loop) as runner:
            runner.run(live())

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield begun.result(_SECONDS)
    finally:
        with contextlib.suppress(RuntimeError):  # it ended by itself
            loop.call_soon_threadsafe(ended.set)
        thread.join(_SECONDS)
