"""Searches by many images: in batches as large as Simile takes now, with waits where it is full."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import (
    AsyncIterator,
    Awaitable,
    Callable,
    Iterable,
    Iterator,
    Mapping,
    Sequence,
)
from typing import Final, Protocol

from services.clients.api import Answer, QueryImage
from services.shared.errors import (
    FileUnusable,
    ImageTooLarge,
    Overloaded,
    RateLimited,
    SimileError,
    from_code,
)

MAX_WAIT_SECONDS: Final = 60.0
"""How long Simile may refuse everything before a search ends with its refusal."""

_FULL: Final = (Overloaded, RateLimited)
_FULL_CODES: Final = frozenset(kind.code for kind in _FULL)
_MIN_PAUSE_SECONDS: Final = 0.1

Clock = Callable[[], float]
Sleep = Callable[[float], Awaitable[None]]
Outcome = tuple[QueryImage, Answer]
"""An image with its result: `{"name": ..., "answer": ...}`, or `problem` in place of `answer`."""


class Searches(Protocol):
    """Searches by a batch of images."""

    async def search_batch(
        self, images: Sequence[QueryImage], parameters: Mapping[str, str]
    ) -> Sequence[Answer]:
        """Return a result for each image."""


class Patience:
    """Waits as Retry-After asks, until Simile has refused for too long."""

    def __init__(self, clock: Clock = time.monotonic, sleep: Sleep = asyncio.sleep) -> None:
        self._clock = clock
        self._sleep = sleep
        self._since: float | None = None

    def renew(self) -> None:
        """Note that Simile has answered."""
        self._since = None

    async def wait(self, refusal: SimileError) -> None:
        """Wait. Raises the refusal where nothing was answered for `MAX_WAIT_SECONDS`."""
        now = self._clock()
        self._since = now if self._since is None else self._since
        if now - self._since > MAX_WAIT_SECONDS:
            raise refusal
        await self._sleep(max(_MIN_PAUSE_SECONDS, refusal.retry_after_seconds or 0))


async def until_admitted(
    send: Callable[[], AsyncIterator[Answer]], patience: Patience
) -> AsyncIterator[Answer]:
    """Yield the answers of a search; where its first page is refused, wait and send it again."""
    while True:
        answered = False
        try:
            async for answer in send():
                answered = True
                yield answer
        except _FULL as refusal:
            if answered:
                raise
            await patience.wait(refusal)
        else:
            return


class BatchSearch:
    """Sends images in batches, halves a batch that is refused, and sends refused images again."""

    def __init__(
        self,
        client: Searches,
        parameters: Mapping[str, str],
        limits: Answer,
        patience: Patience | None = None,
    ) -> None:
        """Send nothing yet.

        Args:
            client: sends a batch.
            parameters: of every batch.
            limits: `max_batch_images` and `batch_max_bytes` bound a batch.
            patience: waits after refusals.
        """
        self._client = client
        self._parameters = parameters
        self._max_images: int = limits["max_batch_images"]
        self._max_bytes: int = limits["batch_max_bytes"]
        self._patience = patience or Patience()
        self._size = self._max_images
        self._again: deque[QueryImage] = deque()

    async def outcomes(self, images: Iterable[QueryImage]) -> AsyncIterator[Outcome]:
        """Yield each image with its result; an image that was refused comes later.

        Raises the error of a whole batch, such as a parameter that is wrong.
        """
        coming = iter(images)
        while True:
            batch, unread = self._next_batch(coming)
            for outcome in unread:
                yield outcome
            if batch:
                for outcome in await self._send(batch):
                    yield outcome
            elif not unread:
                return

    def _next_batch(self, coming: Iterator[QueryImage]) -> tuple[list[QueryImage], list[Outcome]]:
        """Return the next images with their bytes, and those that can't be read."""
        batch, unread, size = list[QueryImage](), list[Outcome](), 0
        while len(batch) < self._size and (image := self._take(coming)) is not None:
            try:
                loaded = image.loaded()
            except FileUnusable as error:
                unread.append((image, _failed(image, error)))
                continue
            size += len(loaded.content)
            if batch and size > self._max_bytes:
                self._again.appendleft(image)
                break
            batch.append(loaded)
        return batch, unread

    def _take(self, coming: Iterator[QueryImage]) -> QueryImage | None:
        return self._again.popleft() if self._again else next(coming, None)

    async def _send(self, batch: Sequence[QueryImage]) -> list[Outcome]:
        try:
            results = await self._client.search_batch(batch, self._parameters)
        except ImageTooLarge as error:
            if len(batch) == 1:
                return [(batch[0], _failed(batch[0], error))]
            self._halve(batch)
            return []
        except _FULL as refusal:
            self._halve(batch)
            await self._patience.wait(refusal)
            return []
        answered = list[Outcome]()
        refused: SimileError | None = None
        for image, result in zip(batch, results, strict=True):
            problem = result.get("problem")
            if problem is not None and problem["code"] in _FULL_CODES:
                refused = from_code(problem["code"], problem["detail"])
                self._again.append(image)
            else:
                answered.append((image, {**result, "name": image.name}))
        await self._adapt(len(answered), refused)
        return answered

    def _halve(self, batch: Sequence[QueryImage]) -> None:
        self._size = max(1, len(batch) // 2)
        self._again.extendleft(reversed(batch))

    async def _adapt(self, answered: int, refusal: SimileError | None) -> None:
        """Send as many images at once as were answered, or more where none was refused."""
        if answered:
            self._patience.renew()
        if refusal is None:
            self._size = min(self._max_images, 2 * self._size)
            return
        self._size = max(1, answered)
        await self._patience.wait(refusal)


def _failed(image: QueryImage, error: SimileError) -> Answer:
    return {"name": image.name, "problem": {"code": error.code, "detail": str(error)}}
