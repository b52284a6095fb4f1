"""One connection to RabbitMQ, kept up by a supervisor of our own.

Each connection is new, with new channels; nothing is restored behind the owner's back.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from typing import Final

import aiormq
import structlog
from aiormq.abc import AbstractChannel, AbstractConnection
from yarl import URL

from services.shared.errors import BrokerUnavailable
from services.shared.lifecycle import cancel

_log = structlog.get_logger(__name__)

_BACKOFF_FIRST_SECONDS: Final = 0.05
_BACKOFF_LONGEST_SECONDS: Final = 1.0
_CONNECT_SECONDS: Final = 5.0
_BLOCKED_POLL_SECONDS: Final = 0.2
_CLOSE_SECONDS: Final = 2.0

GONE: Final = (
    aiormq.exceptions.AMQPError,
    OSError,
    TimeoutError,
    aiormq.exceptions.ChannelInvalidStateError,
    RuntimeError,  # aiormq: a channel asked of a connection that has just closed
)
"""What aiormq raises when a connection or a channel is away or goes away."""

_REFUSED: Final = (
    aiormq.exceptions.AuthenticationError,
    aiormq.exceptions.ProbableAuthenticationError,
    aiormq.exceptions.ChannelPreconditionFailed,
    aiormq.exceptions.ChannelAccessRefused,
)
"""What trying again can't mend."""

Prepare = Callable[[AbstractChannel], Awaitable[None]]


class Link:
    """A supervised connection with one channel of its own, `None` while it is down."""

    def __init__(self, url: str, *, name: str, heartbeat_seconds: int, prepare: Prepare) -> None:
        """`prepare` declares on the fresh channel before the link counts as up."""
        self._url = URL(url).update_query(heartbeat=str(heartbeat_seconds))
        self._name = name
        self._prepare = prepare
        self._refusal: BrokerUnavailable | None = None
        self._changed = asyncio.Condition()
        self._supervisor: asyncio.Task[None] | None = None
        self.connection: AbstractConnection | None = None
        self.channel: AbstractChannel | None = None
        self.blocked = False

    def start(self) -> None:
        """Begin to connect."""
        self._supervisor = asyncio.create_task(self._run(), name=f"amqp {self._name}")

    async def close(self) -> None:
        """Close the connection and stop the supervisor."""
        if self._supervisor is not None:
            await cancel(self._supervisor)

    async def up(self) -> AbstractConnection:
        """The connection, once there is one. Raises BrokerUnavailable when it is refused."""
        async with self._changed:
            await self._changed.wait_for(lambda: self.connection or self._refusal)
        if self.connection is None:
            raise self._refusal or BrokerUnavailable(self._name)
        return self.connection

    async def _run(self) -> None:
        backoff, away = _BACKOFF_FIRST_SECONDS, False
        while True:
            try:
                connection = await self._connect()
            except _REFUSED as error:
                reason = f"RabbitMQ refuses ({self._name}): {error}; check SIMILE_AMQP_URL"
                await self._set(None, None, BrokerUnavailable(reason))
            except BrokerUnavailable as error:
                await self._set(None, None, error)
            except GONE as error:
                # Once an outage: the attempts that follow say nothing new.
                if not away:
                    _log.warning(
                        "broker away", action="broker_away", link=self._name, why=str(error)
                    )
                away = True
            else:
                backoff, away = _BACKOFF_FIRST_SECONDS, False
                await self._hold(connection)
            await asyncio.sleep(backoff * random.uniform(0.5, 1.0))  # noqa: S311 (jitter)
            backoff = min(2 * backoff, _BACKOFF_LONGEST_SECONDS)

    async def _connect(self) -> AbstractConnection:
        async with asyncio.timeout(_CONNECT_SECONDS):
            connection = await aiormq.connect(
                self._url, client_properties={"connection_name": self._name}
            )
            try:
                channel = await connection.channel(publisher_confirms=True, on_return_raises=True)
                await self._prepare(channel)
            except BaseException:
                await connection.close()
                raise
        await self._set(connection, channel, None)
        _log.info("broker connected", action="broker_connected", link=self._name)
        return connection

    async def _hold(self, connection: AbstractConnection) -> None:
        """Watch until the connection or its channel closes; close what is left."""
        channel = self.channel
        watch = asyncio.create_task(self._watch_blocked(connection))
        try:
            closings = {connection.closing, channel.closing} if channel else {connection.closing}
            await asyncio.wait(closings, return_when=asyncio.FIRST_COMPLETED)
            _log.warning("broker lost", action="broker_lost", link=self._name)
        finally:
            await cancel(watch)
            self.blocked = False
            self.connection = self.channel = None
            await _close(connection)

    async def _watch_blocked(self, connection: AbstractConnection) -> None:
        while True:
            try:
                async with asyncio.timeout(_BLOCKED_POLL_SECONDS):
                    await connection.ready()
                self.blocked = False
                await asyncio.sleep(_BLOCKED_POLL_SECONDS)
            except TimeoutError:
                self.blocked = True

    async def _set(
        self,
        connection: AbstractConnection | None,
        channel: AbstractChannel | None,
        refusal: BrokerUnavailable | None,
    ) -> None:
        async with self._changed:
            self.connection, self.channel, self._refusal = connection, channel, refusal
            self._changed.notify_all()


async def _close(connection: AbstractConnection) -> None:
    try:
        async with asyncio.timeout(_CLOSE_SECONDS):
            await connection.close()
    except GONE:
        return
