"""Handles the routes that read collections and items: facts, and lists; no search."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Final

import orjson
from aiohttp import web
from cachetools import LRUCache

from services.shared import imaging
from services.shared.contracts import Filter
from services.shared.contracts.parameters import (
    DEFAULT_PAGE,
    DEFAULT_SAMPLE,
    MAX_PAGE_OF_VECTORS,
    Route,
)
from services.shared.errors import MalformedRequest
from services.shared.volume.items import Item
from services.upload.collections import CollectionReader, OpenCollection
from services.upload.http import responses
from services.upload.query import list_cursor
from services.upload.query.body import single_values
from services.upload.query.filter_warnings import filter_warnings
from services.upload.query.image_input import ImageInput
from services.upload.query.parameters import parse, require_known

_SAMPLES_BYTES: Final = 4 * 2**20
_NONE: Final = frozenset[str]()


@dataclass(frozen=True, slots=True)
class CollectionHandlers:
    """Answers requests about collections and their items.

    Attributes:
        collections: the collections of the volume.
        bodies: builds the bodies of the answers.
        inputs: has the limits of images and batches, which callers can ask for.
        samples: samples as they were answered, the same until the collection's version changes.
    """

    collections: CollectionReader
    bodies: responses.ItemBodies
    inputs: ImageInput
    samples: LRUCache[tuple[str, str, int], bytes] = field(
        default_factory=lambda: LRUCache(_SAMPLES_BYTES, len)
    )

    def routes(self) -> list[web.RouteDef]:
        """Return the routes; each answers HEAD too."""
        return [
            web.get("/v1/collections", self.list_collections),
            web.get("/v1/collections/{name}", self.collection),
            web.get("/v1/collections/{name}/facets", self.facets),
            web.get(Route.SAMPLE, self.sample),
            web.get(Route.ITEMS, self.items),
            web.get("/v1/items/{collection}/{item_id}", self.item),
        ]

    async def list_collections(self, request: web.Request) -> web.Response:
        """GET /v1/collections: the collections, and the limits of images."""
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
        """GET /v1/collections/{name}/facets: the values that filters can use."""
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

    async def items(self, request: web.Request) -> web.Response:
        """GET /v1/items/{collection}: the items that pass a filter, page by page."""
        values = parse(single_values(request), Route.ITEMS)
        wanted, limit = values.get("filter") or Filter(), _page_size(values)
        opened = await self.collections.open(request.match_info["collection"])
        first = list_cursor.decode(values.get("cursor", ""), opened.manifest.version, wanted)
        found, matching = await self.collections.page(opened, wanted, first, limit + 1)
        shown, collection = found[:limit], opened.manifest.collection
        listed = [self.bodies.item(collection, item) for item in shown]
        if values.get("vectors", False):
            vectors = await self.collections.vectors(opened, shown)
            listed = [
                {**body, "vector": responses.numbers(vector)}
                for body, vector in zip(listed, vectors, strict=True)
            ]
        cursor = None
        if len(found) > limit:
            cursor = list_cursor.encode(found[limit].position, opened.manifest.version, wanted)
        answer = {
            **responses.version_body(opened),
            "model_id": opened.manifest.model_id,
            "matching": matching,
            "items": listed,
            "next_cursor": cursor,
            "warnings": await filter_warnings(self.collections, opened, wanted),
        }
        return responses.json_response(answer)

    async def item(self, request: web.Request) -> web.Response:
        """GET /v1/items/{collection}/{item_id}: the item's facts."""
        require_known(single_values(request), _NONE)
        opened, item = await requested_item(self.collections, request)
        return responses.json_response(
            {
                **responses.version_body(opened),
                **self.bodies.item(opened.manifest.collection, item),
            }
        )


async def requested_item(
    collections: CollectionReader, request: web.Request
) -> tuple[OpenCollection, Item]:
    """Return the collection and the item that the path names. Raises UnknownItem."""
    opened = await collections.open(request.match_info["collection"])
    return opened, await collections.item(opened, request.match_info["item_id"])


def _page_size(values: Mapping[str, Any]) -> int:
    """Return the size of a page. Raises MalformedRequest for a large one with vectors."""
    limit: int = values.get("limit", DEFAULT_PAGE)
    if values.get("vectors", False) and limit > MAX_PAGE_OF_VECTORS:
        message = f"limit must be at most {MAX_PAGE_OF_VECTORS} with vectors, not {limit}"
        raise MalformedRequest(message)
    return limit
