"""Vectors for the builder: one image at a time through the bulk queue, with patience."""

from __future__ import annotations

import asyncio
import uuid
from typing import Final

from services.searcher.settings import IndexSettings
from services.shared.contracts import EmbedRequest, Failure, Slip
from services.shared.errors import (
    BrokerUnavailable,
    BuildFailed,
    DeadlineExceeded,
    Overloaded,
    SimileError,
    from_code,
)
from services.shared.messaging import topology
from services.shared.messaging.broker import Broker, Message
from services.shared.messaging.request_reply import Answer, Embedded, Inbox

_BACKOFF_SECONDS: Final = 0.2
_SERVER_FAULT: Final = 500


class BulkEmbedder:
    """Sends images to whatever embedders run, and waits for their vectors."""

    def __init__(self, broker: Broker, inbox: Inbox, settings: IndexSettings) -> None:
        self._broker = broker
        self._inbox = inbox
        self._settings = settings
        self._embedded = 0
        self._sound: bytes | None = None

    async def embed(self, image: bytes) -> Embedded:
        """The image's vector.

        A broker that is away or full is waited for. Raises the image's own error (one of
        `shared.errors`), or BuildFailed when the embedders answer nothing, for no image.
        """
        error: SimileError = BuildFailed("no attempt was made")
        before = self._embedded
        for _ in range(self._settings.attempts):
            try:
                answer = await self._ask(image)
            except TimeoutError:
                message = f"no answer within {self._settings.answer_timeout_seconds:g} s"
                error = DeadlineExceeded(message)
                continue
            if isinstance(answer, Embedded):
                self._embedded += 1
                self._sound = image
                return answer
            if isinstance(answer.outcome, Failure):
                error = from_code(answer.outcome.code, answer.outcome.detail)
                if error.status < _SERVER_FAULT:
                    break
                await asyncio.sleep(_BACKOFF_SECONDS)
        silent = isinstance(error, DeadlineExceeded) and self._embedded == before
        if silent and not await self._answers():
            message = f"the embedders are silent ({error}): is one running, and sound?"
            raise BuildFailed(message)
        raise error

    async def _answers(self) -> bool:
        """Whether an image that was embedded before still is; the silence is about another, then.

        Nothing else tells, where only the last images of a build are waited for.
        """
        if self._sound is None:
            return False
        try:
            return isinstance(await self._ask(self._sound), Embedded)
        except TimeoutError:
            return False

    async def _ask(self, image: bytes) -> Answer:
        while True:
            await self._inbox.opened()
            correlation_id = uuid.uuid4().hex
            try:
                future = self._inbox.expect(correlation_id)
                await self._send(image, correlation_id)
                async with asyncio.timeout(self._settings.answer_timeout_seconds):
                    return (await future).answer
            except (BrokerUnavailable, Overloaded):
                # Waited for, not counted: the build stops when its person stops it.
                await asyncio.sleep(_BACKOFF_SECONDS)
            finally:
                self._inbox.forget(correlation_id)

    async def _send(self, image: bytes, correlation_id: str) -> None:
        queue = self._inbox.queue
        slip = Slip(correlation_id=correlation_id, reply_to=queue, final_reply_to=queue)
        request = Message.of(EmbedRequest(slip, image), persistent=True)
        await self._broker.publish(topology.EMBED_BULK.name, request)
