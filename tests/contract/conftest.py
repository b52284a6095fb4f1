"""Runs the contract on both brokers, each with the faults that a test may cause."""

from __future__ import annotations

import asyncio
import itertools
import secrets
from collections.abc import AsyncIterator, Callable, Mapping, Sequence

import pytest
import uvloop

from services.shared.messaging.broker import Broker, Queue
from services.shared.messaging.memory import MemoryBroker
from services.shared.messaging.rabbitmq.broker import AmqpBroker
from tests.support.cut_proxy import CutProxy
from tests.support.port import Port
from tests.support.rabbitmq import Node


def pytest_asyncio_loop_factories() -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    """Run every test on both event loops that a service may run on."""
    return {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}


@pytest.fixture(params=["memory", "rabbitmq"])
async def port(request: pytest.FixtureRequest) -> AsyncIterator[Port]:
    """Yield the broker in memory, then a real RabbitMQ."""
    prefix = f"test.{secrets.token_hex(4)}"
    names = (f"{prefix}.{number}" for number in itertools.count())
    if request.param == "memory":
        yield _memory(lambda: next(names))
        return
    node: Node = request.getfixturevalue("rabbitmq")
    async with CutProxy(node.port) as proxy:
        brokers: list[AmqpBroker] = []

        async def connect(queues: Sequence[Queue]) -> Broker:
            url = node.url.replace(str(node.port), str(proxy.port))
            broker = AmqpBroker(url, name="contract", publish_timeout_seconds=10)
            brokers.append(broker)
            await broker.start(queues)
            return broker

        async def sever() -> None:
            proxy.cut()

        async def delete(queue: str) -> None:
            await asyncio.to_thread(node.ctl, "delete_queue", queue)

        yield Port(connect, sever, delete, lambda: next(names))
        for broker in brokers:
            await broker.close()


def _memory(name: Callable[[], str]) -> Port:
    broker = MemoryBroker()

    async def connect(queues: Sequence[Queue]) -> Broker:
        await broker.start(queues)
        return broker

    async def sever() -> None:
        broker.sever()

    async def delete(queue: str) -> None:
        broker.delete(queue)

    return Port(connect, sever, delete, name)
