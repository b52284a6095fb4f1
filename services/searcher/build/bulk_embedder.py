"""Embeds images for the builder through the bulk queue, with retries."""

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
    """Sends images to the embedders, and waits for their vectors."""

    def __init__(self, inbox: Inbox, settings: IndexSettings) -> None:
        self._inbox = inbox
        self._settings = settings
        self._embedded = 0
        self._embeddable: bytes | None = None

    async def embed(self, image: bytes) -> Embedded:
        """Return the image's vector; waits for an unavailable or full broker.

        Raises:
            SimileError: the image's own error.
            BuildFailed: the embedders answer no request, of any image.
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
                self._embeddable = image
                return answer
            if isinstance(answer.outcome, Failure):
                error = from_code(answer.outcome.code, answer.outcome.detail)
                if error.status < _SERVER_FAULT:
                    break
                await asyncio.sleep(_BACKOFF_SECONDS)
        silent = isinstance(error, DeadlineExceeded) and self._embedded == before
        if silent and not await self._answers():
            message = f"the embedders do not answer ({error}): check that one runs and is ready"
            raise BuildFailed(message)
        raise error

    async def _answers(self) -> bool:
        """Return whether an image that was embedded before is embedded again.

        Near the end of a build no other answer shows whether the embedders still work.
        """
        if self._embeddable is None:
            return False
        try:
            return isinstance(await self._ask(self._embeddable), Embedded)
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
                # Not counted as an attempt: an absent or full broker is no fault of the image.
                await asyncio.sleep(_BACKOFF_SECONDS)
            else:
                return arrival.answer

    def _slip(self) -> Slip:
        queue = self._inbox.queue
        return Slip(correlation_id=uuid.uuid4().hex, reply_to=queue, final_reply_to=queue)
