"""The adapter retries a connection to RabbitMQ after any answer at the address."""

from __future__ import annotations

import asyncio

import aio_pika
import pytest
from aiormq.connection import FrameReceiver
from aiormq.exceptions import AMQPConnectionError
from yarl import URL

from services.shared.messaging.rabbitmq.broker import AmqpBroker
from services.shared.messaging.rabbitmq.transport import MonitoredTransport


async def test_a_connection_that_ended_is_a_named_error() -> None:
    """A load balancer in front of a dead broker closes the connection before the first frame."""

    async def hang_up(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.close()

    server = await asyncio.start_server(hang_up, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    reader, writer = await MonitoredTransport().create(URL(f"amqp://127.0.0.1:{port}/"))
    assert await reader.read() == b""
    with pytest.raises(AMQPConnectionError):
        await FrameReceiver(reader).get_frame()
    writer.close()
    server.close()


async def test_a_connection_is_retried_without_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """After any error the supervisor connects again, so that the service becomes ready again."""
    tried = asyncio.Semaphore(0)

    def connect(*_: object, **__: object) -> None:
        tried.release()
        raise StopAsyncIteration

    monkeypatch.setattr(aio_pika, "connect", connect)
    broker = AmqpBroker("amqp://guest:guest@127.0.0.1:1/", name="test")
    starting = asyncio.create_task(broker.start([]))
    async with asyncio.timeout(20):
        for _ in range(6):
            await tried.acquire()
    starting.cancel()
    await broker.close()
