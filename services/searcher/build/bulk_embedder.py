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
from services.shared.messaging.broker import Message
from services.shared.messaging.request_reply import Answer, Embedded, Inbox

_BACKOFF_SECONDS: Final = 0.2
_SERVER_FAULT: Final = 500


class BulkEmbedder:
    """Sends images to whatever embedders run, and waits for their vectors."""

    def __init__(self, inbox: Inbox, settings: IndexSettings) -> None:
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
            try:
                slip = self._slip()
                message = Message.of(EmbedRequest(slip, image), persistent=True)
                arrival = await self._inbox.request(
                    topology.EMBED_BULK.name, slip, message, self._settings.answer_timeout_seconds
                )
            except (BrokerUnavailable, Overloaded):
                # Not an attempt: a broker that is away or full says nothing of the image.
                await asyncio.sleep(_BACKOFF_SECONDS)
            else:
                return arrival.answer

    def _slip(self) -> Slip:
        queue = self._inbox.queue
        return Slip(correlation_id=uuid.uuid4().hex, reply_to=queue, final_reply_to=queue)
