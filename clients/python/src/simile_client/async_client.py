"""The asynchronous client, for asyncio.

The blocking client has the same methods: `client` is made from `async_client`.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from types import TracebackType
from typing import Self, TypeVar, Unpack

import httpx

from simile_client import calls
from simile_client.body import Body
from simile_client.calls import Call, P
from simile_client.connection import DEADLINE_SECONDS, DEFAULT_URL, Connection
from simile_client.errors import UnexpectedAnswer
from simile_client.exchange import Outcome, Retries, Send, Wait, exchange
from simile_client.images import Field, Image, Upload
from simile_client.models import (
    BatchAnswer,
    Collection,
    Collections,
    EmbedAnswer,
    Facets,
    ItemOfCollection,
    Items,
    Sample,
    SearchAnswer,
    Status,
)
from simile_client.options import ImageOptions, ItemsOptions, NeighborOptions, VectorOptions

T = TypeVar("T")


class AsyncSimile:
    """A running Simile. Use it as a context manager, or close it; tasks may share it.

    Every method raises `ApiError` when Simile answers with an error, `Unreachable` when no server
    answers in time, and `UnexpectedAnswer` when the server is not Simile. Requests that may
    succeed later are repeated until the deadline, when `Retry-After` or a random wait is over.
    """

    def __init__(
        self,
        url: str = DEFAULT_URL,
        *,
        api_key: str | None = None,
        deadline_seconds: float = DEADLINE_SECONDS,
        retries: Retries | None = None,
        http: httpx.AsyncClient | None = None,
    ) -> None:
        """Create a client; nothing is sent yet.

        Args:
            url: Simile's address, with a path prefix where there is one.
            api_key: the API key, where Simile asks for keys.
            deadline_seconds: the time limit of a call, with all its attempts.
            retries: how often and when a request is repeated.
            http: an httpx client with settings of yours: certificates, proxies. You close it.

        Raises:
            Unreachable: `url` is no URL.
        """
        self._connection = Connection(url, api_key, deadline_seconds, retries or Retries())
        self._http = http or httpx.AsyncClient()
        self._owns_http = http is None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connections."""
        if self._owns_http:
            await self._http.aclose()

    async def search(
        self, image: Image, *, cursor: str | None = None, **options: Unpack[ImageOptions]
    ) -> SearchAnswer:
        """Return the neighbours of an image, nearest first.

        Args:
            image: its path, its bytes, an open file, or an address that starts with http(s)://,
                from which Simile fetches the image.
            cursor: the `next_cursor` of the page before.
            options: `collection`, `k`, `max_distance`, `collapse`, `filter`, `box`.
        """
        return await self.send(calls.search(Upload.of(image), cursor, options))

    def search_pages(
        self, image: Image, **options: Unpack[ImageOptions]
    ) -> AsyncIterator[SearchAnswer]:
        """Iterate over all pages of the answer to a search; options as of `search`."""
        upload = Upload.of(image).kept()
        return self._pages(lambda cursor: calls.search(upload, cursor, options))

    async def search_vector(
        self,
        vector: Sequence[float],
        *,
        cursor: str | None = None,
        **options: Unpack[VectorOptions],
    ) -> SearchAnswer:
        """Return the neighbours of a vector of the collection's model, such as one of `embed`."""
        return await self.send(calls.search_vector(vector, cursor, options))

    async def search_batch(
        self, images: Iterable[Image], **options: Unpack[ImageOptions]
    ) -> BatchAnswer:
        """Return a result for each of several images, in their order; options as of `search`.

        A result is a `BatchAnswered` or a `BatchFailed`: each image fails alone.
        """
        return await self.send(calls.search_batch(images, options))

    async def similar(
        self,
        collection: str,
        item_id: str,
        *,
        cursor: str | None = None,
        **options: Unpack[NeighborOptions],
    ) -> SearchAnswer:
        """Return the neighbours of an item of the collection, nearest first."""
        return await self.send(calls.similar(collection, item_id, cursor, options))

    def similar_pages(
        self, collection: str, item_id: str, **options: Unpack[NeighborOptions]
    ) -> AsyncIterator[SearchAnswer]:
        """Iterate over all pages of the neighbours of an item."""
        return self._pages(lambda cursor: calls.similar(collection, item_id, cursor, options))

    async def embed(self, image: Image) -> EmbedAnswer:
        """Return the vector of an image."""
        return await self.send(calls.embed(image))

    async def collections(self) -> Collections:
        """Return all collections, and the limits of images."""
        return await self.send(calls.collections())

    async def collection(self, name: str) -> Collection:
        """Return a collection: its index, and its build where one runs."""
        return await self.send(calls.collection(name))

    async def facets(self, collection: str) -> Facets:
        """Return the labels and attributes that a filter can name."""
        return await self.send(calls.facets(collection))

    async def sample(self, collection: str, count: int | None = None) -> Sample:
        """Return some items of a collection, spread over it."""
        return await self.send(calls.sample(collection, count))

    async def items(
        self, collection: str, *, cursor: str | None = None, **options: Unpack[ItemsOptions]
    ) -> Items:
        """Return the first items of a collection, or those after a cursor."""
        return await self.send(calls.items(collection, cursor, options))

    def items_pages(self, collection: str, **options: Unpack[ItemsOptions]) -> AsyncIterator[Items]:
        """Iterate over all items of a collection, page by page."""
        return self._pages(lambda cursor: calls.items(collection, cursor, options))

    async def item(self, collection: str, item_id: str) -> ItemOfCollection:
        """Return an item."""
        return await self.send(calls.item(collection, item_id))

    async def image(self, collection: str, item_id: str) -> bytes:
        """Return the bytes of an item's image file."""
        return await self.send(calls.image(collection, item_id))

    async def thumbnail(self, collection: str, item_id: str, size: int | None = None) -> bytes:
        """Return a JPEG of an item, with its longest side of 320, 640, 1280 or 2048 pixels."""
        return await self.send(calls.thumbnail(collection, item_id, size))

    async def preview(self, image: Image, size: int | None = None) -> bytes:
        """Return an image in a format that browsers show; sizes as of `thumbnail`."""
        return await self.send(calls.preview(image, size))

    async def status(self) -> Status:
        """Return the state of a replica and of its last minutes; a key needs the scope admin."""
        return await self.send(calls.status())

    async def _pages(self, call: Callable[[str | None], Call[P]]) -> AsyncIterator[P]:
        cursor = None
        seen = set[str]()
        while True:
            page = await self.send(call(cursor))
            yield page
            cursor = page.next_cursor
            if cursor is None:
                return
            if cursor in seen:
                message = "the server answers with a cursor for the second time: is it Simile?"
                raise UnexpectedAnswer(message)
            seen.add(cursor)

    async def send(self, call: Call[T]) -> T:
        """Send a call of `simile_client.calls`, or one of your own, and return its answer."""
        connection = self._connection
        steps = exchange(call, connection.retries, connection.deadline_seconds)
        outcome: Outcome = None
        while True:
            try:
                step = steps.send(outcome)
            except StopIteration as done:
                answer: T = done.value
                return answer
            match step:
                case Send():
                    outcome = await self._send(call, step)
                case Wait():
                    await asyncio.sleep(step.seconds)
                    outcome = None

    async def _send(self, call: Call[T], step: Send) -> Outcome:
        with call.form() as form:
            try:
                return await asyncio.wait_for(self._receive(call, form, step), step.left_seconds)
            except (httpx.RequestError, httpx.InvalidURL, UnexpectedAnswer, TimeoutError) as error:
                return error

    async def _receive(self, call: Call[T], form: list[Field] | None, step: Send) -> httpx.Response:
        """Send a request once, and return its answer with the content.

        An answer can come so slowly that no read takes long: its deadline is checked per piece.
        """
        connection = self._connection
        async with self._http.stream(
            call.method,
            connection.address(call.path),
            params=call.query,
            files=form,
            json=call.body,
            headers={**connection.headers, **step.headers},
            timeout=step.timeout,
        ) as response:
            body = Body(response, step.left_seconds, call.max_bytes)
            async for piece in response.aiter_bytes():
                body.add(piece)
            return body.whole()
