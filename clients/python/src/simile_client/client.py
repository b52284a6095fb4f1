"""The blocking client, written by `make docs`.

The blocking client has the same methods: `client` is made from `async_client`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
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


class Simile:
    """A running Simile. Use it as a context manager, or close it; threads may share it.

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
        http: httpx.Client | None = None,
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
        self._http = http or httpx.Client()
        self._owns_http = http is None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        if self._owns_http:
            self._http.close()

    def search(
        self, image: Image, *, cursor: str | None = None, **options: Unpack[ImageOptions]
    ) -> SearchAnswer:
        """Return the neighbours of an image, nearest first.

        Args:
            image: its path, its bytes, an open file, or an address that starts with http(s)://,
                from which Simile fetches the image.
            cursor: the `next_cursor` of the page before.
            options: `collection`, `k`, `max_distance`, `collapse`, `filter`, `box`.
        """
        return self.send(calls.search(Upload.of(image), cursor, options))

    def search_pages(self, image: Image, **options: Unpack[ImageOptions]) -> Iterator[SearchAnswer]:
        """Iterate over all pages of the answer to a search; options as of `search`."""
        upload = Upload.of(image).kept()
        return self._pages(lambda cursor: calls.search(upload, cursor, options))

    def search_vector(
        self,
        vector: Sequence[float],
        *,
        cursor: str | None = None,
        **options: Unpack[VectorOptions],
    ) -> SearchAnswer:
        """Return the neighbours of a vector of the collection's model, such as one of `embed`."""
        return self.send(calls.search_vector(vector, cursor, options))

    def search_batch(self, images: Iterable[Image], **options: Unpack[ImageOptions]) -> BatchAnswer:
        """Return a result for each of several images, in their order; options as of `search`.

        A result is a `BatchAnswered` or a `BatchFailed`: each image fails alone.
        """
        return self.send(calls.search_batch(images, options))

    def similar(
        self,
        collection: str,
        item_id: str,
        *,
        cursor: str | None = None,
        **options: Unpack[NeighborOptions],
    ) -> SearchAnswer:
        """Return the neighbours of an item of the collection, nearest first."""
        return self.send(calls.similar(collection, item_id, cursor, options))

    def similar_pages(
        self, collection: str, item_id: str, **options: Unpack[NeighborOptions]
    ) -> Iterator[SearchAnswer]:
        """Iterate over all pages of the neighbours of an item."""
        return self._pages(lambda cursor: calls.similar(collection, item_id, cursor, options))

    def embed(self, image: Image) -> EmbedAnswer:
        """Return the vector of an image."""
        return self.send(calls.embed(image))

    def collections(self) -> Collections:
        """Return all collections, and the limits of images."""
        return self.send(calls.collections())

    def collection(self, name: str) -> Collection:
        """Return a collection: its index, and its build where one runs."""
        return self.send(calls.collection(name))

    def facets(self, collection: str) -> Facets:
        """Return the labels and attributes that a filter can name."""
        return self.send(calls.facets(collection))

    def sample(self, collection: str, count: int | None = None) -> Sample:
        """Return some items of a collection, spread over it."""
        return self.send(calls.sample(collection, count))

    def items(
        self, collection: str, *, cursor: str | None = None, **options: Unpack[ItemsOptions]
    ) -> Items:
        """Return the first items of a collection, or those after a cursor."""
        return self.send(calls.items(collection, cursor, options))

    def items_pages(self, collection: str, **options: Unpack[ItemsOptions]) -> Iterator[Items]:
        """Iterate over all items of a collection, page by page."""
        return self._pages(lambda cursor: calls.items(collection, cursor, options))

    def item(self, collection: str, item_id: str) -> ItemOfCollection:
        """Return an item."""
        return self.send(calls.item(collection, item_id))

    def image(self, collection: str, item_id: str) -> bytes:
        """Return the bytes of an item's image file."""
        return self.send(calls.image(collection, item_id))

    def thumbnail(self, collection: str, item_id: str, size: int | None = None) -> bytes:
        """Return a JPEG of an item, with its longest side of 320, 640, 1280 or 2048 pixels."""
        return self.send(calls.thumbnail(collection, item_id, size))

    def preview(self, image: Image, size: int | None = None) -> bytes:
        """Return an image in a format that browsers show; sizes as of `thumbnail`."""
        return self.send(calls.preview(image, size))

    def status(self) -> Status:
        """Return the state of a replica and of its last minutes; a key needs the scope admin."""
        return self.send(calls.status())

    def _pages(self, call: Callable[[str | None], Call[P]]) -> Iterator[P]:
        cursor = None
        seen = set[str]()
        while True:
            page = self.send(call(cursor))
            yield page
            cursor = page.next_cursor
            if cursor is None:
                return
            if cursor in seen:
                message = "the server answers with a cursor for the second time: is it Simile?"
                raise UnexpectedAnswer(message)
            seen.add(cursor)

    def send(self, call: Call[T]) -> T:
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
                    outcome = self._send(call, step)
                case Wait():
                    time.sleep(step.seconds)
                    outcome = None

    def _send(self, call: Call[T], step: Send) -> Outcome:
        with call.form() as form:
            try:
                return self._receive(call, form, step)
            except (httpx.RequestError, httpx.InvalidURL, UnexpectedAnswer, TimeoutError) as error:
                return error

    def _receive(self, call: Call[T], form: list[Field] | None, step: Send) -> httpx.Response:
        """Send a request once, and return its answer with the content.

        An answer can come so slowly that no read takes long: its deadline is checked per piece.
        """
        connection = self._connection
        with self._http.stream(
            call.method,
            connection.address(call.path),
            params=call.query,
            files=form,
            json=call.body,
            headers={**connection.headers, **step.headers},
            timeout=step.timeout,
        ) as response:
            body = Body(response, step.left_seconds, call.max_bytes)
            for piece in response.iter_bytes():
                body.add(piece)
            return body.whole()
