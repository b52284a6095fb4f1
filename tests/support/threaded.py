"""Runs an asynchronous service on an event loop in a thread, for tests without a loop."""

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
    """Enter the manager in a thread, yield its value, and raise an error of its start here."""
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
        with contextlib.suppress(RuntimeError):  # the loop has ended by itself
            loop.call_soon_threadsafe(ended.set)
        thread.join(_SECONDS)
