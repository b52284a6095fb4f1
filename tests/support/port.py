"""Describes a broker under a contract test, with the faults that the test may cause."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from services.shared.messaging.broker import Broker, Queue


@dataclass(frozen=True, slots=True)
class Port:
    """Connects to the broker under test and causes its faults.

    Attributes:
        connect: Starts a broker object that declares these queues.
        sever: Cuts every connection.
        delete: Deletes a queue.
        name: Returns a queue name that no other test uses.
    """

    connect: Callable[[Sequence[Queue]], Awaitable[Broker]]
    sever: Callable[[], Awaitable[None]]
    delete: Callable[[str], Awaitable[None]]
    name: Callable[[], str]
