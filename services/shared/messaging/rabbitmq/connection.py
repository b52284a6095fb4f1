"""One connection to RabbitMQ, kept up by a supervisor of our own.

Each connection is new, with new channels; nothing is restored behind the owner's back.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Final, cast

import aiormq
import structlog
from aiormq.abc import AbstractChannel, AbstractConnection
from yarl import URL

from services.shared.errors import BrokerUnavailable
from services.shared.lifecycle import cancel
from services.shared.messaging.rabbitmq.refusal import refusal_in
from services.shared.messaging.rabbitmq.tls import AmqpTls
from services.shared.messaging.rabbitmq.wire import Wire

_log = structlog.get_logger(__name__)

_BACKOFF_FIRST_SECONDS: Final = 0.05
_BACKOFF_LONGEST_SECONDS: Final = 0.4
_REFUSED_SECONDS: Final = 2.0
"""Between attempts that RabbitMQ refuses, each of which it writes into its log."""
_CONNECT_SECONDS: Final = 15.0
_GREETING_SECONDS: Final = 1.5
"""An attempt that hears nothing for so long is given up: the way it took may be dead."""
_NEXT_WORD_SECONDS: Final = 5.0
"""RabbitMQ refuses a wrong password by 3 s of silence."""
_WATCH_SECONDS: Final = 0.1
_PROOF_SECONDS: Final = 0.5
_SILENT_SHARE: Final = 0.6
"""Of the heartbeat's time, after which the broker is asked: it says something every half of it."""
_CLOSE_SECONDS: Final = 2.0

GONE: Final = (
    aiormq.exceptions.AMQPError,
    OSError,
    TimeoutError,
    aiormq.exceptions.ChannelInvalidStateError,
    RuntimeError,  # aiormq: a channel asked of a connection that has just closed
)
"""What aiormq raises when a connection or a channel is away or goes away."""

Prepare = Callable[[AbstractChannel], Awaitable[None]]


class Link:
    """A supervised connection with one channel of its own, `None` while it is down."""

    def __init__(
        self,
        url: str,
        *,
        name: str,
        heartbeat_seconds: int,
        prepare: Prepare,
        tls: AmqpTls,
        on_reconnect: Callable[[], None] = lambda: None,
    ) -> None:
        """`prepare` declares on the fresh channel before the link counts as up.

        A heartbeat in the URL's own query goes before heartbeat_seconds. on_reconnect is called
        for each connection after the first.
        """
        self._url = URL(url)
        if "heartbeat" not in self._url.query:
            self._url = self._url.update_query(heartbeat=str(heartbeat_seconds))
        heartbeat = float(self._url.query["heartbeat"])
        self._silence_seconds = _SILENT_SHARE * heartbeat or math.inf
        self._tls = tls
        self._name = name
        self._prepare = prepare
        self._on_reconnect = on_reconnect
        self._once_up = False
        self._refusal: BrokerUnavailable | None = None
        self._closed = False
        self._changed = asyncio.Condition()
        self._supervisor: asyncio.Task[None] | None = None
        self._doubted = asyncio.Event()
        self._waits: set[asyncio.Timeout] = set()
        self.connection: AbstractConnection | None = None
        self.channel: aiormq.Channel | None = None
        self.blocked = False

    def start(self) -> None:
        """Begin to connect."""
        self._supervisor = asyncio.create_task(self._run(), name=f"amqp {self._name}")

    async def close(self) -> None:
        """Close the connection and stop the supervisor; waiting callers get an error."""
        if self._supervisor is not None:
            await cancel(self._supervisor)
        self._closed = True
        await self._set(None, None, BrokerUnavailable("the broker is closed"))

    @property
    def refusal(self) -> BrokerUnavailable | None:
        """Why RabbitMQ, or its certificate, let the last attempt fail; None where it is away."""
        return self._refusal

    async def up(self, *, patient: bool = False) -> AbstractConnection:
        """The connection, once there is one. Raises BrokerUnavailable when it is refused.

        patient: wait through refusals, too.
        """
        async with self._changed:
            await self._changed.wait_for(
                lambda: self.connection or (self._refusal and (self._closed or not patient))
            )
        if self.connection is None:
            raise self._refusal or BrokerUnavailable(self._name)
        return self.connection

    def doubt(self) -> None:
        """Ask the broker for a sign of life, and cut the connection where none comes.

        For callers whose answer does not arrive: heartbeats would take several seconds.
        """
        self._doubted.set()

    @contextlib.asynccontextmanager
    async def unblocked(self, seconds: float) -> AsyncIterator[None]:
        """Around waiting for the broker. Raises TimeoutError after so long, or when it blocks."""
        async with asyncio.timeout(seconds) as wait:
            self._waits.add(wait)
            try:
                yield
            finally:
                self._waits.discard(wait)

    async def _run(self) -> None:
        backoff, away = _BACKOFF_FIRST_SECONDS, False
        while True:
            wire = Wire()
            try:
                connection = await self._connect(wire)
            except Exception as error:  # noqa: BLE001 (a link that gives up is never seen again)
                refusal = refusal_in(error, self._name)
                if refusal is not None:
                    await self._refused(refusal)
                    backoff = _REFUSED_SECONDS
                else:
                    await self._set(None, None, None)
                    # Once an outage: the attempts that follow say nothing new.
                    if not away:
                        _log.warning(
                            "broker away", action="broker_away", link=self._name, why=repr(error)
                        )
                    away = True
            else:
                backoff, away = _BACKOFF_FIRST_SECONDS, False
                await self._hold(connection, wire)
            await asyncio.sleep(backoff * random.uniform(0.5, 1.0))  # noqa: S311 (jitter)
            backoff = min(2 * backoff, _BACKOFF_LONGEST_SECONDS)

    async def _refused(self, refusal: BrokerUnavailable) -> None:
        """Keep the reason for whoever waits, and log a reason that is new."""
        if self._refusal is None or str(self._refusal) != str(refusal):
            _log.error(str(refusal), action="broker_refused", link=self._name)
        await self._set(None, None, refusal)

    async def _connect(self, wire: Wire) -> AbstractConnection:
        async with asyncio.timeout(_CONNECT_SECONDS), _heard(wire):
            secure = self._url.scheme == "amqps"
            # In a thread, since it reads files.
            context = await asyncio.to_thread(self._tls.context) if secure else None
            connection = await aiormq.connect(
                self._url,
                context=context,
                client_properties={"connection_name": self._name},
                transport_factory=wire,
            )
            try:
                opened = await connection.channel(publisher_confirms=True, on_return_raises=True)
                # The abstract class lacks an option of publishing that the real one has.
                channel = cast("aiormq.Channel", opened)
                await self._prepare(channel)
            except BaseException:
                await _close(connection, wire)
                raise
        await self._set(connection, channel, None)
        if self._once_up:
            self._on_reconnect()
        self._once_up = True
        _log.info("broker connected", action="broker_connected", link=self._name)
        return connection

    async def _hold(self, connection: AbstractConnection, wire: Wire) -> None:
        """Watch until the connection or its channel closes; close what is left."""
        channel = self.channel
        watch = asyncio.create_task(self._watch(connection, wire), name=f"watch {self._name}")
        try:
            closings = {connection.closing, channel.closing} if channel else {connection.closing}
            await asyncio.wait(closings, return_when=asyncio.FIRST_COMPLETED)
            _log.warning("broker lost", action="broker_lost", link=self._name)
        finally:
            await cancel(watch)
            self.blocked = False
            self.connection = self.channel = None
            await _close(connection, wire)

    async def _watch(self, connection: AbstractConnection, wire: Wire) -> None:
        """Keep `blocked` as the broker says it is, and cut a connection that fell silent."""
        self._doubted.clear()
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_WATCH_SECONDS):
                    await self._doubted.wait()
            doubted = self._doubted.is_set()
            self._doubted.clear()
            self._block(not await _returns_at_once(connection.ready()))
            silent = time.monotonic() - wire.heard > self._silence_seconds
            if (silent or (doubted and not self.blocked)) and not await _alive(connection, wire):
                _log.warning("broker silent", action="broker_silent", link=self._name)
                return

    def _block(self, blocked: bool) -> None:  # noqa: FBT001 (the state itself)
        if blocked and not self.blocked:
            now = asyncio.get_running_loop().time()
            for wait in self._waits:
                if not wait.expired():
                    wait.reschedule(now)
        self.blocked = blocked

    async def _set(
        self,
        connection: AbstractConnection | None,
        channel: aiormq.Channel | None,
        refusal: BrokerUnavailable | None,
    ) -> None:
        async with self._changed:
            self.connection, self.channel, self._refusal = connection, channel, refusal
            self._changed.notify_all()


@contextlib.asynccontextmanager
async def _heard(wire: Wire) -> AsyncIterator[None]:
    """Raises TimeoutError once the wire brings nothing for too long."""
    loop = asyncio.get_running_loop()
    async with asyncio.timeout(_GREETING_SECONDS) as patience:

        def more() -> None:
            if not patience.expired():
                patience.reschedule(loop.time() + _NEXT_WORD_SECONDS)

        wire.on_heard = more
        try:
            yield
        finally:
            wire.on_heard = None


async def _alive(connection: AbstractConnection, wire: Wire) -> bool:
    """Whether the broker says anything soon, being asked; cuts the wire if not."""
    before = wire.heard
    # A channel of its own: on one in use the question would hold up everything behind it.
    asking = asyncio.create_task(_ask(connection), name="sign of life")
    await asyncio.wait({asking}, timeout=_PROOF_SECONDS)
    alive = wire.heard > before
    if not alive:
        wire.cut()  # first: to end the asking may take words on the wire
        await cancel(asking)
    return alive


async def _ask(connection: AbstractConnection) -> None:
    with contextlib.suppress(*GONE):
        channel = await connection.channel(publisher_confirms=False)
        await channel.close()


async def _returns_at_once(waiting: Awaitable[None]) -> bool:
    """Whether what is waited for is so already."""
    try:
        async with asyncio.timeout(0):
            await waiting
    except TimeoutError:
        return False
    return True


async def _close(connection: AbstractConnection, wire: Wire) -> None:
    """Take leave of the broker, or of a broker that does not answer just go."""
    try:
        async with asyncio.timeout(_CLOSE_SECONDS):
            # By name: aiormq's own default would cancel who waits for an answer.
            await connection.close(aiormq.exceptions.AMQPConnectionError("the connection is lost"))
    except GONE:
        pass
    finally:
        wire.cut()
