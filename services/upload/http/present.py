"""Which requests are being answered: the service ends when none is."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator

from services.shared.lifecycle import wait_idle


class Present:
    """Counts requests from their headers until their answers are made."""

    def __init__(self) -> None:
        self._count = 0
        self._none = asyncio.Event()
        self._none.set()

    @contextlib.contextmanager
    def one(self) -> Iterator[None]:
        """Around one request."""
        self._count += 1
        self._none.clear()
        try:
            yield
        finally:
            self._count -= 1
            if self._count == 0:
                self._none.set()

    async def leave(self, timeout_seconds: float) -> None:
        """Wait until no request is being answered, or the timeout."""
        await wait_idle(self._none.wait(), timeout_seconds, lambda: self._count)
