"""The RabbitMQ adapter's own decisions, over a channel that a test answers for."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, cast

import aiormq
import pytest

from services.shared.errors import BrokerUnavailable
from services.shared.messaging.amqp import AmqpBroker
from services.shared.messaging.broker import Message

MESSAGE = Message("a type", b"a body")


@dataclass
class Channel:
    """Confirms, or not; remembers whether a publish waited for the socket to take it."""

    confirms: bool = True
    waited: list[bool] = field(default_factory=list)

    async def basic_publish(self, body: bytes, *, wait: bool, **options: Any) -> None:
        """As aiormq's, which raises when no confirm comes in time."""
        del body, options
        self.waited.append(wait)
        if not self.confirms:
            raise TimeoutError


@pytest.fixture
def channel() -> Channel:
    """What the broker publishes on."""
    return Channel()


@pytest.fixture
def publish(channel: Channel) -> Callable[[], Awaitable[None]]:
    """Publishes a message on that channel."""
    broker = AmqpBroker("amqp://nowhere", name="test")
    broker._publishing.channel = cast("aiormq.Channel", channel)
    return lambda: broker.publish("a queue", MESSAGE)


async def test_a_publish_does_not_wait_for_the_one_before(
    channel: Channel, publish: Callable[[], Awaitable[None]]
) -> None:
    """While confirms come, nobody waits for the socket as well."""
    await publish()
    await publish()
    assert channel.waited == [False, False]


async def test_without_confirms_nothing_piles_up_unsent(
    channel: Channel, publish: Callable[[], Awaitable[None]]
) -> None:
    """From a missing confirm to the next one, a publish waits until the socket has taken it."""
    channel.confirms = False
    for _ in range(2):
        with pytest.raises(BrokerUnavailable):
            await publish()
    channel.confirms = True
    await publish()
    await publish()
    assert channel.waited == [False, True, True, False]
