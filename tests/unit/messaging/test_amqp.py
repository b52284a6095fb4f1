"""The RabbitMQ adapter decides when to wait and which messages to refuse, on a fake channel."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, cast

import aiormq
import pytest

from services.shared.errors import BrokerUnavailable, Unsendable
from services.shared.messaging.broker import Message
from services.shared.messaging.rabbitmq.broker import AmqpBroker
from services.shared.messaging.rabbitmq.connection import Connection, Opened

MESSAGE = Message("a type", b"a body")


TOO_LARGE = aiormq.exceptions.ChannelPreconditionFailed(
    "PRECONDITION_FAILED - message size 6 is larger than configured max size 3"
)


@dataclass
class Channel:
    """Confirms publishes or not, and records whether each waited for the socket."""

    confirms: bool = True
    closes: Exception | None = None
    waited: list[bool] = field(default_factory=list)

    async def basic_publish(self, body: bytes, *, wait: bool, **options: Any) -> None:
        """Publish as aiormq does, which raises when no confirm arrives in time."""
        del body, options
        self.waited.append(wait)
        if self.closes is not None:
            raise self.closes
        if not self.confirms:
            raise TimeoutError


@pytest.fixture
def channel() -> Channel:
    """Return the channel that the broker publishes on."""
    return Channel()


@pytest.fixture
def publish(channel: Channel, monkeypatch: pytest.MonkeyPatch) -> Callable[[], Awaitable[None]]:
    """Return a function that publishes a message on that channel."""
    unused = cast("Any", None)

    def open_connection(*arguments: Any, **options: Any) -> Connection:
        connection = Connection(*arguments, **options)
        connection.opened = Opened(unused, unused, cast("aiormq.Channel", channel))
        return connection

    monkeypatch.setattr("services.shared.messaging.rabbitmq.broker.Connection", open_connection)
    broker = AmqpBroker("amqp://nowhere", name="test")
    return lambda: broker.publish("a queue", MESSAGE)


async def test_a_publish_does_not_wait_for_the_one_before(
    channel: Channel, publish: Callable[[], Awaitable[None]]
) -> None:
    """While confirms arrive, no publish waits for the socket."""
    await publish()
    await publish()
    assert channel.waited == [False, False]


async def test_without_confirms_nothing_piles_up_unsent(
    channel: Channel, publish: Callable[[], Awaitable[None]]
) -> None:
    """After a missing confirm, each publish waits for the socket until a confirm arrives."""
    channel.confirms = False
    for _ in range(2):
        with pytest.raises(BrokerUnavailable):
            await publish()
    channel.confirms = True
    await publish()
    await publish()
    assert channel.waited == [False, True, True, False]


async def test_a_message_over_the_broker_s_own_bound_is_sent_once_and_never_again(
    channel: Channel, publish: Callable[[], Awaitable[None]]
) -> None:
    """RabbitMQ closes the channel once; after that, the adapter refuses such messages itself."""
    channel.closes = TOO_LARGE
    for _ in range(3):
        with pytest.raises(Unsendable, match="at most 3 bytes"):
            await publish()
    assert len(channel.waited) == 1


async def test_a_publish_beside_such_a_message_fails_as_the_broker_being_away(
    channel: Channel, publish: Callable[[], Awaitable[None]]
) -> None:
    """The channel closes for every publish; a small message is not called too large."""
    channel.closes = aiormq.exceptions.ChannelPreconditionFailed(
        "PRECONDITION_FAILED - message size 999 is larger than configured max size 99"
    )
    with pytest.raises(BrokerUnavailable):
        await publish()
    channel.closes = None
    await publish()
