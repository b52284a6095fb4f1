"""Quarantines messages that broke a worker or can't be decoded, with all known facts.

A record is a message in one bounded queue: facts in its headers, and the quarantined message as
its body where the operator keeps those. The queue drops its oldest record; a record keeps at most
`MAX_KEPT_BYTES` of a message, so that a few large messages don't push out all others.
"""

from __future__ import annotations

import asyncio
import dataclasses
import hashlib
import secrets
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Self

import structlog

from services.shared import imaging
from services.shared.contracts import EmbedRequest, codec
from services.shared.errors import (
    BrokerUnavailable,
    Overloaded,
    SimileError,
    UndecodableMessage,
    Unsendable,
)
from services.shared.messaging import topology
from services.shared.messaging.broker import Broker, Delivery, Message, Queue
from services.shared.telemetry.log_limit import LogLimit

_log = structlog.get_logger(__name__)

MAX_KEPT_BYTES: Final = 16 * 2**20
"""A sixteenth of the queue's bound. Of a larger message only the facts are kept."""

HEAD_BYTES: Final = 4096
"""Of a message that can't be decoded the first bytes are kept, enough to identify it."""

_LONG_BYTES: Final = 2**20
_TRIES: Final = 5
_RETRY_SECONDS: Final = 0.2
_DETAIL_CHARACTERS: Final = 500
_MAX_DIGITS: Final = 18
_NUMBERS: Final = ("set_aside_unix_ms", "size_bytes", "deaths")


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """The facts about a quarantined message.

    Attributes:
        record_id: names the record.
        reason: the code of the error.
        detail: the message of the error.
        queue: the queue that the message was received from.
        set_aside_unix_ms: when it was quarantined, in Unix time.
        replica: the process that quarantined it.
        model_id: the model of that process; empty where it has none.
        correlation_id: the query's; empty where the message can't be decoded.
        format: the format of the image, or of the message where it holds no image.
        size_bytes: its size.
        sha256: its hash, in hex.
        deaths: how many embedders crashed with it.
    """

    record_id: str
    reason: str = "unknown"
    detail: str = ""
    queue: str = ""
    set_aside_unix_ms: int = 0
    replica: str = ""
    model_id: str = ""
    correlation_id: str = ""
    format: str = ""
    size_bytes: int = 0
    sha256: str = ""
    deaths: int = 0

    @property
    def headers(self) -> Mapping[str, str]:
        """The record as a message's headers."""
        return {name: str(value) for name, value in dataclasses.asdict(self).items()}

    @classmethod
    def of(cls, headers: Mapping[str, str]) -> Self:
        """Return the record in these headers; missing or invalid values have their default."""
        known: dict[str, Any] = {"record_id": "?"}
        for name in (field.name for field in dataclasses.fields(cls)):
            value = headers.get(name)
            if value is not None and name not in _NUMBERS:
                known[name] = value
            elif value is not None and len(value) <= _MAX_DIGITS and value.isdecimal():
                known[name] = int(value)
        return cls(**known)


class Quarantine:
    """Publishes records to the quarantine queue."""

    def __init__(
        self,
        broker: Broker,
        *,
        replica: str,
        model_id: str = "",
        keeps_messages: bool,
        retry_seconds: float = _RETRY_SECONDS,
    ) -> None:
        """Create a quarantine.

        Args:
            broker: the broker that holds the queue.
            replica: the name of this process.
            model_id: the model of this process.
            keeps_messages: a record holds the message, and with it the image.
            retry_seconds: the time between attempts to publish a record.
        """
        self._broker = broker
        self._replica = replica
        self._model_id = model_id
        self._keeps_messages = keeps_messages
        self._retry_seconds = retry_seconds
        self._undecodable = LogLimit()

    async def put(
        self, delivery: Delivery, queue: Queue, error: SimileError, *, deaths: int = 0
    ) -> None:
        """Quarantine a message of the queue; where the broker accepts none, only log it."""
        correlation_id, content = _content(delivery)
        # Hashing a hundred megabytes would block the event loop.
        digest = (
            await asyncio.to_thread(hashlib.sha256, content)
            if len(content) > _LONG_BYTES
            else hashlib.sha256(content)
        )
        record = Record(
            record_id=secrets.token_hex(4),
            reason=error.code,
            detail=str(error)[:_DETAIL_CHARACTERS],
            queue=queue.name,
            set_aside_unix_ms=time.time_ns() // 1_000_000,
            replica=self._replica,
            model_id=self._model_id,
            correlation_id=correlation_id,
            # By its first bytes alone: a decoder could crash on the content.
            format=imaging.format_of(content),
            size_bytes=len(content),
            sha256=digest.hexdigest(),
            deaths=deaths,
        )
        self._log_record(error, record)
        body = self._kept(delivery, error) if self._keeps_messages else b""
        await self._publish(Message(delivery.type, body, persistent=True, headers=record.headers))

    def _log_record(self, error: SimileError, record: Record) -> None:
        """Log the record; of messages that can't be decoded only some, to keep the log short."""
        left_out: int | None = 0
        if isinstance(error, UndecodableMessage):
            left_out = self._undecodable.left_out()
        if left_out is not None:
            facts = dataclasses.asdict(record)
            _log.error("message quarantined", action="quarantined", left_out=left_out, **facts)

    def _kept(self, delivery: Delivery, error: SimileError) -> bytes:
        """Return the part of the message that its record keeps."""
        if isinstance(error, UndecodableMessage):
            return delivery.body[:HEAD_BYTES]
        return delivery.body if len(delivery.body) <= MAX_KEPT_BYTES else b""

    async def _publish(self, message: Message) -> None:
        for _ in range(_TRIES):
            try:
                await self._broker.publish(topology.QUARANTINE.name, message)
            except Unsendable as error:
                failed: SimileError = error
                break
            except (BrokerUnavailable, Overloaded) as error:
                failed = error
                await asyncio.sleep(self._retry_seconds)
            else:
                return
        _log.error(str(failed), action="quarantine_failed", **message.headers)


def _content(delivery: Delivery) -> tuple[str, bytes]:
    """Return the correlation id and the image, or an empty id and the body."""
    try:
        message = codec.decode(delivery.type, delivery.body)
    except UndecodableMessage:
        return "", delivery.body
    if isinstance(message, EmbedRequest):
        return message.slip.correlation_id, message.image
    return "", delivery.body
