"""A build's long work in threads, and its progress, by which that work ends with the build.

No thread outlives the build: it would write to a journal that is closed, without the build's lock.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import ParamSpec, TypeVar

from services.searcher.progress import Progress
from services.shared.errors import BuildFailed

_P = ParamSpec("_P")
_T = TypeVar("_T")


class Interruptible:
    """Runs work in a thread, and is the progress that this work reports to."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._stopping = threading.Event()

    async def run(self, work: Callable[_P, _T], *args: _P.args, **kwargs: _P.kwargs) -> _T:
        """Do the work in a thread; when cancelled, wait until it has noticed."""
        running = asyncio.ensure_future(asyncio.to_thread(work, *args, **kwargs))
        try:
            return await asyncio.shield(running)
        except asyncio.CancelledError:
            self._stopping.set()
            # gather, since nobody asks for the work's own end any more
            await asyncio.gather(running, return_exceptions=True)
            raise

    def begin(self, stage: str, total: int | None, unit: str = "images") -> None:
        """Pass it on. Raises BuildFailed once the work is to end."""
        self._go_on()
        self._progress.begin(stage, total, unit)

    def advance(self, count: int = 1, *, failed: bool = False) -> None:
        """Pass it on. Raises BuildFailed once the work is to end."""
        self._go_on()
        self._progress.advance(count, failed=failed)

    def _go_on(self) -> None:
        if self._stopping.is_set():
            message = "the build was interrupted; run it again, it goes on where it was"
            raise BuildFailed(message)
