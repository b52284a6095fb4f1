"""Chooses the event loop of a process."""

from __future__ import annotations

import asyncio
import importlib
from collections.abc import Callable
from typing import Literal

from services.shared.errors import MissingExtra

EventLoop = Literal["auto", "asyncio", "uvloop"]


def loop_factory(event_loop: EventLoop) -> Callable[[], asyncio.AbstractEventLoop]:
    """Return the factory of the event loop; uvloop takes less CPU. Raises MissingExtra."""
    if event_loop == "asyncio":
        return asyncio.new_event_loop
    try:
        uvloop = importlib.import_module("uvloop")
    except ImportError:
        if event_loop == "uvloop":
            message = (
                "SIMILE_EVENT_LOOP is uvloop, which is missing: pip install 'simile-search[fast]'"
            )
            raise MissingExtra(message) from None
        return asyncio.new_event_loop
    factory: Callable[[], asyncio.AbstractEventLoop] = uvloop.new_event_loop
    return factory
