"""A connection to RabbitMQ that a supervisor of our own keeps open.

After a loss the supervisor makes a new connection with new channels and restores nothing: consumers
see the loss, and their owners consume again.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import Final, cast

import aio_pika
import aiormq
import structlog
from aio_pika.abc import AbstractChannel
from yarl import URL

from services.shared.errors import BrokerUnavailable
from services.shared.lifecycle import cancel
from services.shared.messaging.rabbitmq.refusal import refusal_in
from services.shared.messaging.rabbitmq.tls import AmqpTls
from services.shared.messaging.rabbitmq.transport import MonitoredConnection

_log = structlog.get_logger(__name__)

_MIN_BACKOFF_SECONDS: Final = 0.05
_MAX_BACKOFF_SECONDS: Final = 0.4
_REFUSED_SECONDS: Final = 2.0
"""Between attempts that RabbitMQ refuses: it logs each of them."""
_CONNECT_SECONDS: Final = 15.0
_HEARTBEAT_SECONDS: Final = 5
"""Unless the URL has a `heartbeat` parameter."""
_WATCH_SECONDS: Final = 0.1
_SILENT_SHARE: Final = 0.6
"""Of the heartbeat's time, after which RabbitMQ is probed: it sends something every half of it."""

Prepare = Callable[[AbstractChannel], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Opened:
    """An open connection and its channel.

    Attributes:
        connection: aio-pika's connection.
        channel: aio-pika's channel, with publisher confirms.
        publisher: the channel underneath `channel`. Publishing there saves the CPU time of
            aio-pika's message objects.
    """

    connection: MonitoredConnection
    channel: AbstractChannel
    publisher: aiormq.Channel


class Connection:
    """Keeps one connection to RabbitMQ open.

    Attributes:
        opened: the open connection; None while there is none.
        blocked: RabbitMQ accepts no messages on this connection now.
        refusal: the reason why RabbitMQ refused the last attempt, or why its certificate is not
            trusted; None where RabbitMQ can't be reached.
    """

    def __init__(
        self,
        url: str,
        *,
        name: str,
        prepare: Prepare,
        tls: AmqpTls,
        on_reconnect: Callable[[], None] = lambda: None,
    ) -> None:
        """Keep the settings; `start` connects.

        Args:
            url: an AMQP URL.
            name: shown in RabbitMQ's list of connections and in the log.
            prepare: declares the queues on each new channel.
            tls: the certificates, for amqps.
            on_reconnect: called for each connection after the first.
        """
        self._url = URL(url)
        if "heartbeat" not in self._url.query:
            self._url = self._url.update_query(heartbeat=str(_HEARTBEAT_SECONDS))
        heartbeat = float(self._url.query["heartbeat"])
        self._max_silence_seconds = _SILENT_SHARE * heartbeat or math.inf
        self._name = name
        self._prepare = prepare
        self._tls = tls
        self._on_reconnect = on_reconnect
        self._was_open = False
        self._closed = False
        self._changed = asyncio.Condition()
        self._supervisor: asyncio.Task[None] | None = None
        self._probe_requested = asyncio.Event()
        self._waits: set[asyncio.Timeout] = set()
        self.opened: Opened | None = None
        self.blocked = False
        self.refusal: BrokerUnavailable | None = None

    def start(self) -> None:
        """Begin to connect."""
        self._supervisor = asyncio.create_task(self._supervise(), name=f"amqp {self._name}")

    async def close(self) -> None:
        """Stop the supervisor and close the connection; `wait_connected` raises from now on."""
        if self._supervisor is not None:
            await cancel(self._supervisor)
        self._closed = True
        await self._set(None, BrokerUnavailable("the broker is closed"))

    async def wait_connected(self, *, patient: bool = False) -> MonitoredConnection:
        """Wait for the connection and return it.

        Args:
            patient: keep waiting while RabbitMQ refuses this process.

        Raises:
            BrokerUnavailable: RabbitMQ refuses this process, or `close` was called.
        """
        async with self._changed:
            await self._changed.wait_for(
                lambda: self.opened or (self.refusal and (self._closed or not patient))
            )
        if self.opened is None:
            raise self.refusal or BrokerUnavailable(self._name)
        return self.opened.connection

    def probe(self) -> None:
        """Check that RabbitMQ still answers; the connection is cut when it does not.

        Call it after an answer did not come: heartbeats notice a dead peer only seconds later.
        """
        self._probe_requested.set()

    @contextlib.asynccontextmanager
    async def unless_blocked(self, seconds: float) -> AsyncIterator[None]:
        """Raise TimeoutError inside after `seconds`, or as soon as RabbitMQ blocks publishes."""
        async with asyncio.timeout(seconds) as wait:
            self._waits.add(wait)
            try:
                yield
            finally:
                self._waits.discard(wait)

    async def _supervise(self) -> None:
        backoff, logged = _MIN_BACKOFF_SECONDS, False
        while True:
            try:
                opened = await self._open()
            except Exception as error:  # noqa: BLE001 (a supervisor that ends is never started again)
                refusal = refusal_in(error, self._name)
                if refusal is not None:
                    await self._refused(refusal)
                    backoff = _REFUSED_SECONDS
                else:
                    await self._set(None, None)
                    # Once an outage: further attempts fail for the same reason.
                    if not logged:
                        _log.warning(
                            "broker away", action="broker_away", link=self._name, why=repr(error)
                        )
                    logged = True
            else:
                backoff, logged = _MIN_BACKOFF_SECONDS, False
                await self._hold(opened)
            await asyncio.sleep(backoff * random.uniform(0.5, 1.0))  # noqa: S311 (jitter)
            backoff = min(2 * backoff, _MAX_BACKOFF_SECONDS)

    async def _refused(self, refusal: BrokerUnavailable) -> None:
        """Keep the reason for `wait_connected`; log a new reason."""
        if self.refusal is None or str(self.refusal) != str(refusal):
            _log.error(str(refusal), action="broker_refused", link=self._name)
        await self._set(None, refusal)

    async def _open(self) -> Opened:
        """Connect, open the channel and declare the queues."""
        async with asyncio.timeout(_CONNECT_SECONDS):
            secure = self._url.scheme == "amqps"
            # In a thread, since it reads files.
            context = await asyncio.to_thread(self._tls.context) if secure else None
            connection = await aio_pika.connect(
                self._url,
                ssl_context=context,
                client_properties={"connection_name": self._name},
                connection_class=MonitoredConnection,
            )
            try:
                async with connection.socket.answering():
                    channel = await connection.channel(on_return_raises=True)
                    await self._prepare(channel)
                # The abstract class lacks a parameter of basic_publish that the real one has.
                publisher = cast("aiormq.Channel", await channel.get_underlay_channel())
            except BaseException:
                await connection.close_or_cut()
                raise
        opened = Opened(connection, channel, publisher)
        await self._set(opened, None)
        if self._was_open:
            self._on_reconnect()
        self._was_open = True
        _log.info("broker connected", action="broker_connected", link=self._name)
        return opened

    async def _hold(self, opened: Opened) -> None:
        """Wait until the connection or its channel is lost, then close what is left."""
        connection, channel = opened.connection, opened.channel
        lost = asyncio.Event()
        connection.close_callbacks.add(lambda *_: lost.set())
        channel.close_callbacks.add(lambda *_: lost.set())
        watch = asyncio.create_task(self._watch(connection), name=f"watch {self._name}")
        try:
            if connection.connected.is_set() and not channel.is_closed:
                await lost.wait()
            _log.warning("broker lost", action="broker_lost", link=self._name)
        finally:
            await cancel(watch)
            self.blocked = False
            self.opened = None
            await connection.close_or_cut()

    async def _watch(self, connection: MonitoredConnection) -> None:
        """Keep `blocked` up to date, and cut a connection whose peer is silent."""
        self._probe_requested.clear()
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_WATCH_SECONDS):
                    await self._probe_requested.wait()
            requested = self._probe_requested.is_set()
            self._probe_requested.clear()
            self._set_blocked(not await connection.is_ready())
            silence = time.monotonic() - connection.socket.last_received
            wanted = silence > self._max_silence_seconds or (requested and not self.blocked)
            if wanted and not await connection.answers():
                _log.warning("broker silent", action="broker_silent", link=self._name)
                return

    def _set_blocked(self, blocked: bool) -> None:  # noqa: FBT001 (the state itself)
        if blocked and not self.blocked:
            now = asyncio.get_running_loop().time()
            for wait in self._waits:
                if not wait.expired():
                    wait.reschedule(now)
        self.blocked = blocked

    async def _set(self, opened: Opened | None, refusal: BrokerUnavailable | None) -> None:
        async with self._changed:
            self.opened, self.refusal = opened, refusal
            self._changed.notify_all()
