"""Handles the routes: reads a request, calls collections or search client, answers with JSON."""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass, replace

from aiohttp import web

from services.shared.contracts import Box, Question
from services.shared.contracts.parameters import Route
from services.shared.imaging import Probe
from services.upload.batch import BatchHandler
from services.upload.collection_handlers import CollectionHandlers, requested_item
from services.upload.collections import CollectionReader, OpenCollection
from services.upload.http import responses
from services.upload.http.bodies import Body
from services.upload.http.context import (
    ALLOWANCE,
    FACTS,
    QUERY_ID,
    TIMELINE,
    TRACEPARENT,
    caller_deadline,
)
from services.upload.image_handlers import ImageHandlers
from services.upload.metrics import UploadMetrics
from services.upload.query.body import read_header, read_query, single_values
from services.upload.query.filter_warnings import filter_warnings
from services.upload.query.given_vector import VECTOR_FIELD, given_vector
from services.upload.query.image_input import ImageInput
from services.upload.query.parameters import (
    Fields,
    parse,
    parse_search,
)
from services.upload.search.queries import Found, SearchQuery
from services.upload.search.reservations import Reservation
from services.upload.search.search_client import SearchClient


@dataclass(frozen=True, slots=True)
class Handlers:
    """Every route of the API."""

    client: SearchClient
    collections: CollectionReader
    metrics: UploadMetrics
    inputs: ImageInput
    bodies: responses.ItemBodies

    def routes(self) -> list[web.RouteDef]:
        """Return the API's routes; GET routes answer HEAD too."""
        batch = BatchHandler(self.client, self.collections, self.metrics, self.inputs, self.bodies)
        browsing = CollectionHandlers(self.collections, self.bodies, self.inputs)
        images = ImageHandlers(self.client, self.collections, self.metrics, self.inputs)
        return [
            web.post(Route.SEARCH, self.search),
            web.post(Route.BATCH, batch.search),
            web.post(Route.EMBED, self.embed),
            web.get(Route.SIMILAR, self.similar),
            *browsing.routes(),
            *images.routes(),
        ]

    async def search(self, request: web.Request) -> web.Response:
        """POST /v1/search: the neighbours of the image in the body, or of a part of it."""
        until = caller_deadline(request)
        caller = request[ALLOWANCE].caller
        with (
            self.client.reserve(caller, until, may_be_known=True) as reservation,
            self._arriving(request) as body,
        ):
            image, fields = await self._query_of(request, Route.SEARCH, body)
            vector = fields.pop(VECTOR_FIELD, None)
            if vector is None:
                opened, question, box = await self._question_of(fields)
                query = _query(request, question, until, box)
                async with self.collections.reading(opened):
                    found = await self._by_image(request, query, image, opened, reservation)
            else:
                self.client.admission.embedding.release(reservation)
                opened, question, box = await self._question_of(fields)
                query = _query(request, question, until)
                async with self.collections.reading(opened):
                    found = await self.client.similar(query, given_vector(vector, box, opened))
        return await self._answer_found(request, query, found, opened)

    async def similar(self, request: web.Request) -> web.Response:
        """GET .../similar: the neighbours of an item of the collection, without the item."""
        question, _ = parse_search(single_values(request), Route.SIMILAR)
        until = caller_deadline(request)
        self.client.require_open()
        opened, item = await requested_item(self.collections, request)
        vector = await self.collections.vector(opened, item)
        request[TIMELINE].lap("lookup")
        question = replace(question, collection=opened.manifest.collection, exclude=item.item_id)
        query = _query(request, question, until)
        async with self.collections.reading(opened):
            found = await self.client.similar(query, vector)
        return await self._answer_found(request, query, found, opened)

    async def embed(self, request: web.Request) -> web.Response:
        """POST /v1/embed: the vector of the image in the body."""
        until = caller_deadline(request)
        caller = request[ALLOWANCE].caller
        with self.client.reserve(caller, until) as reservation, self._arriving(request) as body:
            image, fields = await self._query_of(request, Route.EMBED, body)
            await self._header_of(request, image, until)
            parse(fields, Route.EMBED)
            query = _query(request, Question(), until)
            query.timeline.lap("sniff")
            embedded = await self.client.embed(query, image, reservation)
        query.timeline.lap("reply")
        seconds = query.timeline.seconds()
        answer = responses.embedding_body(query.query_id, embedded, seconds)
        return responses.json_response(answer, headers=responses.server_timing(seconds))

    def _arriving(self, request: web.Request) -> AbstractContextManager[Body]:
        announced = min(request.content_length or 0, self.inputs.limits.image.max_bytes)
        return self.inputs.bodies.arriving(request[ALLOWANCE].caller, announced)

    async def _query_of(
        self, request: web.Request, route: Route, body: Body
    ) -> tuple[bytes, dict[str, str]]:
        """Read the image and the parameters; without an image a parameter takes its place."""
        limits, fetch = self.inputs.limits, self.inputs.fetch
        image, fields = await read_query(request, route, limits, body, fetch)
        body.arrived()
        request[TIMELINE].lap("receive")
        if image:
            self.metrics.image_bytes.observe(len(image))
            request[FACTS]["bytes"] = len(image)
        return image, fields

    async def _header_of(self, request: web.Request, image: bytes, until: float | None) -> Probe:
        left = self.client.left_seconds(until)
        header = await read_header(image, self.inputs.limits.image, left)
        request[FACTS]["format"] = header.format
        return header

    async def _question_of(self, fields: Fields) -> tuple[OpenCollection, Question, Box | None]:
        """Return the question, which names its collection; the collection, open; and the box."""
        question, box = parse_search(fields, Route.SEARCH)
        opened = await self.collections.open(question.collection)
        return opened, replace(question, collection=opened.manifest.collection), box

    async def _by_image(
        self,
        request: web.Request,
        query: SearchQuery,
        image: bytes,
        opened: OpenCollection,
        reservation: Reservation,
    ) -> Found:
        header = await self._header_of(request, image, query.deadline)
        query.timeline.lap("sniff")

        async def shrunk(whole: bytes) -> bytes:
            model_id = opened.manifest.model_id
            sent = await self.inputs.shrinker.shrunk(whole, header, model_id, query.box)
            request[FACTS]["sent_bytes"] = len(sent)
            query.timeline.lap("sniff")
            return sent

        return await self.client.search(query, image, reservation, shrunk)

    async def _answer_found(
        self,
        request: web.Request,
        query: SearchQuery,
        found: Found,
        opened: OpenCollection,
    ) -> web.Response:
        warnings = await filter_warnings(self.collections, opened, query.question.filter)
        request[TIMELINE].lap("reply")
        seconds = request[TIMELINE].seconds()
        body = self.bodies.search(query, found, seconds, warnings)
        logged = ("collection", "index_version", "model_id", "matching")
        request[FACTS].update({name: body[name] for name in logged})
        request[FACTS]["neighbors"] = len(found.neighbors.neighbors)
        return responses.json_response(body, headers=responses.server_timing(seconds))


def _query(
    request: web.Request, question: Question, until: float | None, box: Box | None = None
) -> SearchQuery:
    """Return the query of a request, with its id, its trace and its timeline."""
    return SearchQuery(
        query_id=request[QUERY_ID],
        traceparent=request[TRACEPARENT],
        timeline=request[TIMELINE],
        question=question,
        box=box,
        deadline=until,
    )
