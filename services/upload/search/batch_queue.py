"""Holds the images of batches that wait for a slot; batches take turns."""

from __future__ import annotations

import asyncio
from collections import deque
from contextlib import suppress


class BatchQueue:
    """Queues waiting images by batch, so that a long batch does not delay a later one."""

    def __init__(self) -> None:
        self._turns: dict[str, deque[asyncio.Future[None]]] = {}

    def __len__(self) -> int:
        return sum(map(len, self._turns.values()))

    def add(self, batch: str, turn: asyncio.Future[None]) -> None:
        """Add an image of a batch."""
        self._turns.setdefault(batch, deque()).append(turn)

    def pop(self) -> asyncio.Future[None]:
        """Return the first image of the next batch, which goes behind the other batches."""
        batch = next(iter(self._turns))
        turns = self._turns.pop(batch)
        turn = turns.popleft()
        if turns:
            self._turns[batch] = turns
        return turn

    def remove(self, batch: str, turn: asyncio.Future[None]) -> None:
        """Remove an image that no longer waits, if it is still queued."""
        turns = self._turns.get(batch, deque())
        with suppress(ValueError):
            turns.remove(turn)
            if not turns:
                del self._turns[batch]
