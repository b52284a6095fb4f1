"""Runs a build's long work in threads, which end with the build.

A thread that outlived the build would write to a closed journal, without the build's lock.
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


class BuildThread:
    """Runs work in a thread; the work reports progress to this object, which can interrupt it."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._stopping = threading.Event()

    async def run(self, work: Callable[_P, _T], *args: _P.args, **kwargs: _P.kwargs) -> _T:
        """Run the work in a thread; when cancelled, wait until the thread has ended."""
        running = asyncio.ensure_future(asyncio.to_thread(work, *args, **kwargs))
        try:
            return await asyncio.shield(running)
        except asyncio.CancelledError:
            self._stopping.set()
            # gather: the exception of the work is not needed any more
            await asyncio.gather(running, return_exceptions=True)
            raise

    def begin(self, stage: str, total: int | None, unit: str = "images") -> None:
        """Forward to the progress. Raises BuildFailed when the work must end."""
        self._check_stopping()
        self._progress.begin(stage, total, unit)

    def advance(self, count: int = 1, *, failed: bool = False) -> None:
        """Forward to the progress. Raises BuildFailed when the work must end."""
        self._check_stopping()
        self._progress.advance(count, failed=failed)

    def _check_stopping(self) -> None:
        if self._stopping.is_set():
            message = "the build was interrupted; run it again, it continues where it stopped"
            raise BuildFailed(message)
