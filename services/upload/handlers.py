"""Handles the routes: reads a request, asks collections or search client, answers with JSON."""

from __future__ import annotations

from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass, field, replace
from typing import Final

import orjson
from aiohttp import web
from cachetools import LRUCache

from services.shared import imaging
from services.shared.contracts.parameters import DEFAULT_SAMPLE, Route
from services.shared.imaging import Header
from services.shared.volume.items import Item
from services.upload.batch import BatchHandler
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
from services.upload.query.image_input import ImageInput
from services.upload.query.parameters import (
    Fields,
    parse,
    parse_search,
    require_known,
)
from services.upload.search.queries import Found, SearchQuery
from services.upload.search.search_client import SearchClient
from services.upload.stored_images import EncodedImage

_SAMPLES_BYTES: Final = 4 * 2**20
_ITEM_MAX_AGE_SECONDS: Final = 300
_NONE: Final = frozenset[str]()
_IMAGE_TAG: Final = '"{}"'
_THUMBNAIL_TAG: Final = '"{}-thumbnail"'
"""ETags, of the SHA-256 of the file's bytes."""


@dataclass(frozen=True, slots=True)
class Handlers:
    """Every route of the API."""

    client: SearchClient
    collections: CollectionReader
    metrics: UploadMetrics
    inputs: ImageInput
    bodies: responses.ItemBodies
    samples: LRUCache[tuple[str, str, int], bytes] = field(
        default_factory=lambda: LRUCache(_SAMPLES_BYTES, len)
    )
    """Samples as they were answered: the same until the collection's version changes."""

    def routes(self) -> list[web.RouteDef]:
        """The API's routes; GET routes answer HEAD too."""
        batch = BatchHandler(self.client, self.collections, self.metrics, self.inputs, self.bodies)
        return [
            web.post(Route.SEARCH, self.search),
            web.post(Route.BATCH, batch.search),
            web.post(Route.EMBED, self.embed),
            web.get("/v1/collections", self.list_collections),
            web.get("/v1/collections/{name}", self.collection),
            web.get("/v1/collections/{name}/facets", self.facets),
            web.get(Route.SAMPLE, self.sample),
            web.get("/v1/items/{collection}/{item_id}", self.item),
            web.get("/v1/items/{collection}/{item_id}/image", self.image),
            web.get("/v1/items/{collection}/{item_id}/thumbnail", self.thumbnail),
            web.get(Route.SIMILAR, self.similar),
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
        return self._answer_found(request, found)

    async def similar(self, request: web.Request) -> web.Response:
        """GET .../similar: the neighbours of an item of the collection, itself left out."""
        question, _ = parse_search(single_values(request), Route.SIMILAR)
        until = caller_deadline(request)
        self.client.require_open()
        opened, item = await self._item_of(request)
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
        return self._answer_found(request, found)

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

    async def list_collections(self, request: web.Request) -> web.Response:
        """GET /v1/collections: what there is to search, and what an image may be."""
        require_known(single_values(request), _NONE)
        limits = {
            "image_max_bytes": self.inputs.limits.image.max_bytes,
            "image_max_pixels": self.inputs.limits.image.max_pixels,
            "max_batch_images": self.inputs.limits.batch_images,
            "batch_max_bytes": self.inputs.limits.batch_bytes,
            "formats": list(imaging.formats()),
        }
        listing, default = await self.collections.listing()
        return responses.json_response(
            {
                "collections": [responses.collection_body(listed) for listed in listing],
                "default_collection": default,
                "limits": limits,
            }
        )

    async def collection(self, request: web.Request) -> web.Response:
        """GET /v1/collections/{name}."""
        require_known(single_values(request), _NONE)
        listed = await self.collections.listed(request.match_info["name"])
        return responses.json_response(responses.collection_body(listed))

    async def facets(self, request: web.Request) -> web.Response:
        """GET /v1/collections/{name}/facets: what a filter can ask for."""
        require_known(single_values(request), _NONE)
        opened = await self.collections.open(request.match_info["name"])
        return responses.json_response(
            responses.facets_body(opened, await self.collections.facets(opened))
        )

    async def sample(self, request: web.Request) -> web.Response:
        """GET /v1/collections/{name}/sample: items spread over the collection."""
        count = parse(single_values(request), Route.SAMPLE).get("count", DEFAULT_SAMPLE)
        opened = await self.collections.open(request.match_info["name"])
        key = opened.manifest.collection, opened.manifest.version, count
        body = self.samples.get(key)
        if body is None:
            items = await self.collections.sample(opened, count)
            listed = [self.bodies.item(opened.manifest.collection, item) for item in items]
            body = orjson.dumps({**responses.version_body(opened), "items": listed})
            with suppress(ValueError):  # of a sample that is larger than the cache
                self.samples[key] = body
        return responses.json_bytes_response(body)

    async def item(self, request: web.Request) -> web.Response:
        """GET /v1/items/{collection}/{item_id}: the item's facts."""
        require_known(single_values(request), _NONE)
        opened, item = await self._item_of(request)
        return responses.json_response(
            {
                **responses.version_body(opened),
                **self.bodies.item(opened.manifest.collection, item),
            }
        )

    async def image(self, request: web.Request) -> web.StreamResponse:
        """GET .../image: the stored file as it is now."""
        opened, item = await self._item_of(request)
        if (unchanged := await self._unchanged(request, opened, item, _IMAGE_TAG)) is not None:
            return unchanged
        picture = await self.collections.images.image(opened.manifest, item)
        return _image_response(request, picture, _IMAGE_TAG)

    async def thumbnail(self, request: web.Request) -> web.StreamResponse:
        """GET .../thumbnail: a small JPEG."""
        opened, item = await self._item_of(request)
        if (unchanged := await self._unchanged(request, opened, item, _THUMBNAIL_TAG)) is not None:
            return unchanged
        picture, cached = await self.collections.images.thumbnail(opened.manifest, item)
        self.metrics.thumbnails.labels(source="cache" if cached else "made").inc()
        return _image_response(request, picture, _THUMBNAIL_TAG)

    def _arriving(self, request: web.Request) -> AbstractContextManager[Body]:
        announced = min(request.content_length or 0, self.inputs.limits.image.max_bytes)
        return self.inputs.bodies.arriving(request[ALLOWANCE].caller, announced)

    async def _image_of(
        self, request: web.Request, body: Body, until: float | None
    ) -> tuple[bytes, Header, Fields]:
        image, fields = await read_image(request, self.inputs.limits, body, self.inputs.fetch)
        body.arrived()
        request[TIMELINE].lap("receive")
        self.metrics.image_bytes.observe(len(image))
        request[FACTS]["bytes"] = len(image)
        left = self.client.left_seconds(until)
        header = await read_header(image, self.inputs.limits.image, left)
        request[FACTS]["format"] = header.format
        return image, header, fields

    async def _unchanged(
        self, request: web.Request, opened: OpenCollection, item: Item, form: str
    ) -> web.Response | None:
        """304 where the file's times show that the caller holds it; None where it must be read."""
        if not request.if_none_match:
            return None
        sha256 = await self.collections.images.known_sha256(opened.manifest, item)
        if sha256 is None or not _holds(request, form.format(sha256)):
            return None
        return _not_modified(form.format(sha256))

    async def _item_of(self, request: web.Request) -> tuple[OpenCollection, Item]:
        opened = await self.collections.open(request.match_info["collection"])
        return opened, await self.collections.item(opened, request.match_info["item_id"])

    def _answer_found(self, request: web.Request, found: Found) -> web.Response:
        request[TIMELINE].lap("reply")
        seconds = request[TIMELINE].seconds()
        body = self.bodies.search(request[QUERY_ID], found, seconds)
        logged = ("collection", "index_version", "model_id", "matching")
        request[FACTS].update({name: body[name] for name in logged})
        request[FACTS]["neighbors"] = len(found.neighbors.neighbors)
        return responses.json_response(body, headers=responses.server_timing(seconds))


def _holds(request: web.Request, tag: str) -> bool:
    """Return True where If-None-Match names the tag."""
    return tag.strip('"') in {one.value for one in request.if_none_match or ()}


def _holds_any(request: web.Request) -> bool:
    return "*" in {one.value for one in request.if_none_match or ()}


def _caching(tag: str) -> dict[str, str]:
    return {"ETag": tag, "Cache-Control": f"private, max-age={_ITEM_MAX_AGE_SECONDS}"}


def _not_modified(tag: str) -> web.Response:
    return web.Response(status=304, headers=_caching(tag))


def _image_response(request: web.Request, picture: EncodedImage, form: str) -> web.Response:
    """The picture, or 304; Range is not looked at, so no answer mixes two states of a file."""
    tag = form.format(picture.sha256)
    if _holds(request, tag) or _holds_any(request):
        return _not_modified(tag)
    return web.Response(
        body=picture.content, content_type=picture.media_type, headers=_caching(tag)
    )
