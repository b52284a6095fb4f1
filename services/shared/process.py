"""Runs one service as a process: logs, admin server, broker, signals, exit code."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable
from typing import Final

import structlog

from services.shared import lifecycle
from services.shared.environment import unknown_variables
from services.shared.errors import InvalidSettings
from services.shared.messaging import topology
from services.shared.messaging.broker import Broker
from services.shared.messaging.metrics import BrokerMetrics
from services.shared.messaging.rabbitmq.broker import AmqpBroker
from services.shared.messaging.rabbitmq.tls import AmqpTls
from services.shared.settings import SharedSettings
from services.shared.telemetry import Telemetry, logs
from services.shared.telemetry.health import Check, lasting, start_admin
from services.shared.telemetry.loop import watched_loop
from services.shared.telemetry.metrics import ReleaseMetrics
from services.shared.telemetry.tracing import tracing

_log = structlog.get_logger(__name__)

_START_SECONDS: Final = 60.0
"""How long a command waits for RabbitMQ before it reports the reason."""

_REFUSED_SECONDS: Final = 300.0
"""How long RabbitMQ may refuse the credentials. A restart reads a changed Secret; without one the
environment keeps the old value."""

Run = Callable[[Broker, asyncio.Event, Telemetry], Awaitable[None]]
"""Runs a service whose settings are bound already."""


def amqp_broker(
    shared: SharedSettings,
    name: str,
    on_reconnect: Callable[[str], None] = lambda _: None,
    *,
    start_timeout_seconds: float | None = _START_SECONDS,
) -> AmqpBroker:
    """Return the RabbitMQ adapter that the settings describe.

    Args:
        shared: the settings.
        name: the name of the connection, as RabbitMQ shows it.
        on_reconnect: called with the reason after each reconnect.
        start_timeout_seconds: how long its start waits for RabbitMQ; None waits for ever.

    Raises:
        InvalidSettings: the URL is missing, or a TLS file can't be used.
    """
    if shared.amqp_url is None:
        message = "SIMILE_AMQP_URL is missing: a service in its own process needs RabbitMQ"
        raise InvalidSettings(message)
    url = shared.amqp_url.get_secret_value()
    tls = AmqpTls(shared.amqp_ca_file, shared.amqp_cert_file, shared.amqp_key_file)
    if tls.given and not url.startswith("amqps://"):
        # Without this check, messages would travel unencrypted although TLS is configured.
        message = "SIMILE_AMQP_CA_FILE, _CERT_FILE and _KEY_FILE need a SIMILE_AMQP_URL of amqps://"
        raise InvalidSettings(message)
    tls.context()
    return AmqpBroker(
        url,
        name=f"{name} {shared.replica}",
        publish_timeout_seconds=shared.publish_timeout_seconds,
        tls=tls,
        on_reconnect=on_reconnect,
        start_timeout_seconds=start_timeout_seconds,
    )


def run_service(name: str, shared: SharedSettings, run: Run) -> None:
    """Run the service until a signal or an error, then exit with the code of the reason.

    The admin server answers before the broker is reached. A service waits for RabbitMQ for ever,
    live but not ready: a restart would not bring RabbitMQ back, and Kubernetes delays each further
    restart.
    """
    logs.configure(shared.log_level, shared.log_format, service=name, replica=shared.replica)
    for complaint in unknown_variables(os.environ):
        _log.warning(complaint, action="unknown_setting")

    async def main(stop: asyncio.Event) -> None:
        telemetry = Telemetry(tracing=tracing(shared.tracing, shared.replica))
        ReleaseMetrics(telemetry.registry).show(name)
        seen = BrokerMetrics(telemetry.registry)
        broker = amqp_broker(shared, name, seen.reconnected, start_timeout_seconds=None)
        health = telemetry.health
        health.ready_when("broker", broker_check(broker))
        health.ready_when("draining", lambda: "draining" if stop.is_set() else None)
        health.live_when("broker", lasting(lambda: broker.refusal, _REFUSED_SECONDS))
        admin = await start_admin(health, telemetry.registry, shared.admin_host, shared.admin_port)
        _log.info("starting", action="start", admin=[str(address) for address in admin.addresses])
        try:
            async with watched_loop(health, telemetry.registry), seen.watching(broker):
                await lifecycle.started(stop, broker.start(topology.ALL))
                await run(broker, stop, telemetry)
        finally:
            await broker.close()
            await asyncio.to_thread(telemetry.tracing.close)
            await admin.cleanup()

    lifecycle.run_process(main, shared.event_loop)


def broker_check(broker: Broker) -> Check:
    """Return a check that fails while the broker is disconnected or accepts no messages."""

    def check() -> str | None:
        if broker.blocked:
            return "the broker accepts no messages (memory or disk alarm)"
        return None if broker.ready else broker.refusal or "the broker is unavailable"

    return check
