"""The quarantine: what broke a worker is set aside there, with all that is known of it.

A record is a message in one bounded queue: facts in its headers, the culprit's own message as its
body where an operator wants that kept. The oldest is dropped; so that a few large messages don't
push out all others, a record keeps at most `MAX_KEPT_BYTES` of one.
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
"""A sixteenth of what the queue holds. A larger message leaves only its facts."""

HEAD_BYTES: Final = 4096
"""The first bytes of a message that can't be decoded are kept: enough to see what it is."""

_LONG_BYTES: Final = 2**20
_TRIES: Final = 5
_RETRY_SECONDS: Final = 0.2
_DETAIL_CHARACTERS: Final = 500
_MAX_DIGITS: Final = 18
_NUMBERS: Final = ("set_aside_unix_ms", "size_bytes", "deaths")


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """Why something was set aside, when, where, and what it was.

    reason: an error's code. queue: where its message came from. format, size_bytes and sha256 are
    the image's, or the message's where it holds none. deaths: embedders that died with it.
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
        """The record in these headers; what is missing or odd has its default."""
        known: dict[str, Any] = {"record_id": "?"}
        for name in (field.name for field in dataclasses.fields(cls)):
            value = headers.get(name)
            if value is not None and name not in _NUMBERS:
                known[name] = value
            elif value is not None and len(value) <= _MAX_DIGITS and value.isdecimal():
                known[name] = int(value)
        return cls(**known)


class Quarantine:
    """Sets things aside."""

    def __init__(
        self, broker: Broker, *, replica: str, model_id: str = "", keeps_messages: bool
    ) -> None:
        """keeps_messages: whether a record holds the message, and so the image."""
        self._broker = broker
        self._replica = replica
        self._model_id = model_id
        self._keeps_messages = keeps_messages
        self._undecodable = LogLimit()

    async def put(
        self, culprit: Delivery, queue: Queue, error: SimileError, *, deaths: int = 0
    ) -> None:
        """Set a message of the queue aside. Where the broker takes nothing, a log line is left."""
        correlation_id, content = _content(culprit)
        # Hashing a hundred megabytes would hold up the event loop.
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
            # By its first bytes alone: whatever it broke, it must not break again.
            format=imaging.format_of(content),
            size_bytes=len(content),
            sha256=digest.hexdigest(),
            deaths=deaths,
        )
        self._tell(error, record)
        body = self._kept(culprit, error) if self._keeps_messages else b""
        await self._publish(Message(culprit.type, body, persistent=True, headers=record.headers))

    def _tell(self, error: SimileError, record: Record) -> None:
        """Log the record; of messages that can't be decoded only some, lest they fill the log."""
        left_out: int | None = 0
        if isinstance(error, UndecodableMessage):
            left_out = self._undecodable.left_out()
        if left_out is not None:
            facts = dataclasses.asdict(record)
            _log.error("set aside", action="quarantined", left_out=left_out, **facts)

    def _kept(self, culprit: Delivery, error: SimileError) -> bytes:
        """As much of the message as its record keeps."""
        if isinstance(error, UndecodableMessage):
            return culprit.body[:HEAD_BYTES]
        return culprit.body if len(culprit.body) <= MAX_KEPT_BYTES else b""

    async def _publish(self, message: Message) -> None:
        for _ in range(_TRIES):
            try:
                await self._broker.publish(topology.QUARANTINE.name, message)
            except Unsendable as error:
                failed: SimileError = error
                break
            except (BrokerUnavailable, Overloaded) as error:
                failed = error
                await asyncio.sleep(_RETRY_SECONDS)
            else:
                return
        _log.error(str(failed), action="quarantine_failed", **message.headers)


def _content(culprit: Delivery) -> tuple[str, bytes]:
    """The correlation id and the image, or no id and the body."""
    try:
        message = codec.decode(culprit.type, culprit.body)
    except UndecodableMessage:
        return "", culprit.body
    if isinstance(message, EmbedRequest):
        return message.slip.correlation_id, message.image
    return "", culprit.body
