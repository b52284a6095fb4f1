"""Handles the routes: reads a request, calls collections or search client, answers with JSON."""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass, replace

from aiohttp import web

from services.shared.contracts import Filter
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
from services.upload.metrics import UploadMetrics
from services.upload.query.body import read_header, read_image, single_values
from services.upload.query.filter_warnings import filter_warnings
from services.upload.query.image_input import ImageInput
from services.upload.query.parameters import (
    Fields,
    parse,
    parse_search,
)
from services.upload.search.queries import Found, SearchQuery
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
        browsing = CollectionHandlers(self.collections, self.metrics, self.bodies, self.inputs)
        return [
            web.post(Route.SEARCH, self.search),
            web.post(Route.BATCH, batch.search),
            web.post(Route.EMBED, self.embed),
            web.get(Route.SIMILAR, self.similar),
            *browsing.routes(),
        ]

    async def search(self, request: web.Request) -> web.Response:
        """POST /v1/search: the neighbours of the image in the body, or of a part of it."""
        until = caller_deadline(request)
        caller = request[ALLOWANCE].caller
        with (
            self.client.reserve(caller, until, may_be_known=True) as reservation,
            self._arriving(request) as body,
        ):
            image, header, fields = await self._image_of(request, body, until)
            self.client.left_seconds(until)
            question, box = parse_search(fields, Route.SEARCH)
            opened = await self.collections.open(question.collection)
            query = SearchQuery(
                query_id=request[QUERY_ID],
                traceparent=request[TRACEPARENT],
                timeline=request[TIMELINE],
                question=replace(question, collection=opened.manifest.collection),
                box=box,
                deadline=until,
            )
            query.timeline.lap("sniff")

            async def shrunk(whole: bytes) -> bytes:
                model_id = opened.manifest.model_id
                sent = await self.inputs.shrinker.shrunk(whole, header, model_id, box)
                request[FACTS]["sent_bytes"] = len(sent)
                query.timeline.lap("sniff")
                return sent

            found = await self.client.search(query, image, reservation, shrunk)
        return await self._answer_found(request, found, opened, question.filter)

    async def similar(self, request: web.Request) -> web.Response:
        """GET .../similar: the neighbours of an item of the collection, without the item."""
        question, _ = parse_search(single_values(request), Route.SIMILAR)
        until = caller_deadline(request)
        self.client.require_open()
        opened, item = await requested_item(self.collections, request)
        vector = await self.collections.vector(opened, item)
        request[TIMELINE].lap("lookup")
        query = SearchQuery(
            query_id=request[QUERY_ID],
            traceparent=request[TRACEPARENT],
            timeline=request[TIMELINE],
            question=replace(question, collection=opened.manifest.collection, exclude=item.item_id),
            deadline=until,
        )
        found = await self.client.similar(query, vector)
        return await self._answer_found(request, found, opened, question.filter)

    async def embed(self, request: web.Request) -> web.Response:
        """POST /v1/embed: the vector of the image in the body."""
        until = caller_deadline(request)
        caller = request[ALLOWANCE].caller
        with self.client.reserve(caller, until) as reservation, self._arriving(request) as body:
            image, _, fields = await self._image_of(request, body, until)
            parse(fields, Route.EMBED)
            query = SearchQuery(
                query_id=request[QUERY_ID],
                traceparent=request[TRACEPARENT],
                timeline=request[TIMELINE],
                deadline=until,
            )
            query.timeline.lap("sniff")
            embedded = await self.client.embed(query, image, reservation)
        query.timeline.lap("reply")
        seconds = query.timeline.seconds()
        answer = responses.embedding_body(query.query_id, embedded, seconds)
        return responses.json_response(answer, headers=responses.server_timing(seconds))

    def _arriving(self, request: web.Request) -> AbstractContextManager[Body]:
        announced = min(request.content_length or 0, self.inputs.limits.image.max_bytes)
        return self.inputs.bodies.arriving(request[ALLOWANCE].caller, announced)

    async def _image_of(
        self, request: web.Request, body: Body, until: float | None
    ) -> tuple[bytes, Probe, Fields]:
        image, fields = await read_image(request, self.inputs.limits, body, self.inputs.fetch)
        body.arrived()
        request[TIMELINE].lap("receive")
        self.metrics.image_bytes.observe(len(image))
        request[FACTS]["bytes"] = len(image)
        left = self.client.left_seconds(until)
        header = await read_header(image, self.inputs.limits.image, left)
        request[FACTS]["format"] = header.format
        return image, header, fields

    async def _answer_found(
        self,
        request: web.Request,
        found: Found,
        opened: OpenCollection,
        wanted: Filter | None,
    ) -> web.Response:
        warnings = await filter_warnings(self.collections, opened, wanted)
        request[TIMELINE].lap("reply")
        seconds = request[TIMELINE].seconds()
        body = self.bodies.search(request[QUERY_ID], found, seconds, warnings)
        logged = ("collection", "index_version", "model_id", "matching")
        request[FACTS].update({name: body[name] for name in logged})
        request[FACTS]["neighbors"] = len(found.neighbors.neighbors)
        return responses.json_response(body, headers=responses.server_timing(seconds))
