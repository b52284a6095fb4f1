"""A broker under a contract test, with the faults that the test may cause."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from services.shared.messaging.broker import Broker, Queue


@dataclass(frozen=True, slots=True)
class Port:
    """A broker under test: `connect` starts one more, the rest causes faults."""

    connect: Callable[[Sequence[Queue]], Awaitable[Broker]]
    sever: Callable[[], Awaitable[None]]
    delete: Callable[[str], Awaitable[None]]
    name: Callable[[], str]
