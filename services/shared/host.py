"""Hosts one service in a process of its own: logs, admin server, broker, signals, exit code."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import structlog

from services.shared import lifecycle
from services.shared.errors import InvalidSettings
from services.shared.messaging import topology
from services.shared.messaging.amqp import AmqpBroker
from services.shared.messaging.broker import Broker
from services.shared.settings import SharedSettings
from services.shared.telemetry import Telemetry, logs
from services.shared.telemetry.health import start_admin

_log = structlog.get_logger(__name__)

Run = Callable[[Broker, asyncio.Event, Telemetry], Awaitable[None]]
"""A service's composition root, its settings already given."""


def amqp_broker(shared: SharedSettings, name: str) -> AmqpBroker:
    """The RabbitMQ adapter that the settings name. Raises InvalidSettings without a URL."""
    if shared.amqp_url is None:
        message = "SIMILE_AMQP_URL is missing: a service in its own process needs RabbitMQ"
        raise InvalidSettings(message)
    return AmqpBroker(
        shared.amqp_url.get_secret_value(),
        name=f"{name} {shared.replica}",
        publish_timeout_seconds=shared.publish_timeout_seconds,
    )


def host(name: str, shared: SharedSettings, run: Run) -> None:
    """Run the service until a signal or its death; never returns, exits with the reason's code.

    The admin server answers before the broker is reached, so that a waiting service shows why.
    """
    logs.configure(shared.log_level, shared.log_format)
    structlog.contextvars.bind_contextvars(service=name, replica=shared.replica)

    async def main(stop: asyncio.Event) -> None:
        broker = amqp_broker(shared, name)
        telemetry = Telemetry()
        telemetry.health.ready_when("broker", lambda: _reason(broker))
        admin = await start_admin(
            telemetry.health, telemetry.registry, shared.admin_host, shared.admin_port
        )
        _log.info("starting", action="start", admin=[str(address) for address in admin.addresses])
        try:
            if await _started(broker, stop):
                await run(broker, stop, telemetry)
        finally:
            await broker.close()
            await admin.cleanup()

    lifecycle.run_process(main)


async def _started(broker: Broker, stop: asyncio.Event) -> bool:
    """Start the broker; False when `stop` was set before it was up."""
    starting = asyncio.create_task(broker.start(topology.ALL))
    stopping = asyncio.create_task(stop.wait())
    try:
        await asyncio.wait({starting, stopping}, return_when=asyncio.FIRST_COMPLETED)
        if starting.done():
            await starting
        return starting.done()
    finally:
        await lifecycle.cancel(starting, stopping)


def _reason(broker: Broker) -> str | None:
    if broker.blocked:
        return "the broker takes no messages now (memory or disk alarm)"
    return None if broker.ready else "the broker is away"
