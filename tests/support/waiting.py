"""Waits in an event loop for a condition that other tasks fulfil."""

from __future__ import annotations

import asyncio
from collections.abc import Callable


async def until(condition: Callable[[], bool], *, seconds: float = 60) -> None:
    """Poll until the condition holds; raise TimeoutError after that many seconds."""
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.005)
