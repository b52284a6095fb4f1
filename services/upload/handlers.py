"""The routes: each reads its request, asks the library or the search client, and answers JSON."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from aiohttp import web

from services.shared import imaging
from services.shared.collection import Item
from services.shared.contracts import Neighbor
from services.upload.library import Library, Picture, Shelf
from services.upload.metrics import UploadMetrics
from services.upload.query import (
    DEFAULT_K,
    MAX_K,
    Question,
    parse_int,
    parse_question,
    read_image,
    require_known,
    single_values,
)
from services.upload.search_client import Found, SearchClient, Timed

QUERY_ID: Final = web.RequestKey("query_id", str)
FACTS: Final = web.RequestKey("facts", dict[str, Any])
"""What the request's one log line says besides status and time."""

_MAX_SAMPLE: Final = 200
_DEFAULT_SAMPLE: Final = 24
_ITEM_MAX_AGE_SECONDS: Final = 300


@dataclass(frozen=True, slots=True)
class Handlers:
    """Every route of the API."""

    client: SearchClient
    library: Library
    metrics: UploadMetrics
    limits: imaging.Limits
    body_timeout_seconds: float

    def routes(self) -> list[web.RouteDef]:
        """The API's routes; GET routes answer HEAD too."""
        return [
            web.post("/v1/search", self.search),
            web.post("/v1/embed", self.embed),
            web.get("/v1/collections", self.collections),
            web.get("/v1/collections/{name}", self.collection),
            web.get("/v1/collections/{name}/sample", self.sample),
            web.get("/v1/items/{collection}/{item_id}", self.item),
            web.get("/v1/items/{collection}/{item_id}/image", self.image),
            web.get("/v1/items/{collection}/{item_id}/thumbnail", self.thumbnail),
            web.get("/v1/items/{collection}/{item_id}/similar", self.similar),
        ]

    async def search(self, request: web.Request) -> web.Response:
        """POST /v1/search: the neighbours of the image in the body."""
        with self.client.admitted(), self.metrics.in_flight.track_inprogress():
            image, fields = await self._image_of(request)
            asked = parse_question(fields)
            shelf = await self.library.shelf(asked.collection)
            question = Question(shelf.manifest.collection, asked.k, asked.max_distance)
            found = await self.client.search(request[QUERY_ID], image, question, _trace(request))
        return self._answer_found(request, found, found.neighbors.neighbors)

    async def similar(self, request: web.Request) -> web.Response:
        """GET .../similar: the neighbours of an item of the collection, itself left out."""
        fields = single_values(request)
        require_known(fields, {"k"})
        k = parse_int(fields, "k", default=DEFAULT_K, low=1, high=MAX_K)
        with self.client.admitted(), self.metrics.in_flight.track_inprogress():
            shelf, item = await self._item_of(request)
            vector = await self.library.vector(shelf, item)
            question = Question(shelf.manifest.collection, k + 1)
            found = await self.client.similar(request[QUERY_ID], vector, question, _trace(request))
        others = [one for one in found.neighbors.neighbors if one.item_id != item.item_id]
        return self._answer_found(request, found, others[:k])

    async def embed(self, request: web.Request) -> web.Response:
        """POST /v1/embed: the vector of the image in the body."""
        with self.client.admitted(), self.metrics.in_flight.track_inprogress():
            image, fields = await self._image_of(request)
            require_known(fields, set())
            embedded, timed = await self.client.embed(request[QUERY_ID], image, _trace(request))
        vector = struct.unpack(f"<{embedded.dimension}f", embedded.embedding.vector)
        query_id: str = request[QUERY_ID]
        body = {
            "query_id": query_id,
            "model_id": embedded.model_id,
            "dimension": embedded.dimension,
            "vector": list(vector),
            "timings_ms": self._timings(timed),
        }
        return web.json_response(body, headers=_server_timing(timed))

    async def collections(self, request: web.Request) -> web.Response:
        """GET /v1/collections: what there is to search, and what an image may be."""
        require_known(single_values(request), set())
        limits = {
            "image_max_bytes": self.limits.max_bytes,
            "image_max_pixels": self.limits.max_pixels,
            "formats": list(imaging.formats()),
        }
        shelves = await self.library.shelves()
        return web.json_response(
            {"collections": [_collection(shelf) for shelf in shelves], "limits": limits}
        )

    async def collection(self, request: web.Request) -> web.Response:
        """GET /v1/collections/{name}."""
        require_known(single_values(request), set())
        return web.json_response(_collection(await self.library.shelf(request.match_info["name"])))

    async def sample(self, request: web.Request) -> web.Response:
        """GET /v1/collections/{name}/sample: items spread over the collection."""
        fields = single_values(request)
        require_known(fields, {"count"})
        count = parse_int(fields, "count", default=_DEFAULT_SAMPLE, low=1, high=_MAX_SAMPLE)
        shelf = await self.library.shelf(request.match_info["name"])
        items = await self.library.sample(shelf, count)
        return web.json_response(
            {
                "collection": shelf.manifest.collection,
                "index_version": shelf.manifest.version,
                "items": [_item(shelf, item) for item in items],
            }
        )

    async def item(self, request: web.Request) -> web.Response:
        """GET /v1/items/{collection}/{item_id}: the item's facts."""
        require_known(single_values(request), set())
        shelf, item = await self._item_of(request)
        manifest = shelf.manifest
        of = {"collection": manifest.collection, "index_version": manifest.version}
        return web.json_response({**of, **_item(shelf, item)})

    async def image(self, request: web.Request) -> web.StreamResponse:
        """GET .../image: the stored file."""
        shelf, item = await self._item_of(request)
        tag = f'"{item.sha256}"'
        if _unchanged(request, tag):
            return _not_modified(tag)
        return _picture(await self.library.image(shelf, item), tag)

    async def thumbnail(self, request: web.Request) -> web.StreamResponse:
        """GET .../thumbnail: a small JPEG."""
        shelf, item = await self._item_of(request)
        tag = f'"{item.sha256}-thumbnail"'
        if _unchanged(request, tag):
            return _not_modified(tag)
        picture, cached = await self.library.thumbnail(shelf, item)
        self.metrics.thumbnails.labels(source="cache" if cached else "made").inc()
        return _picture(picture, tag)

    async def _image_of(self, request: web.Request) -> tuple[bytes, Mapping[str, str]]:
        image, fields = await read_image(
            request, max_bytes=self.limits.max_bytes, timeout_seconds=self.body_timeout_seconds
        )
        self.metrics.image_bytes.observe(len(image))
        request[FACTS]["bytes"] = len(image)
        header = await asyncio.to_thread(imaging.sniff, image, self.limits)
        request[FACTS]["format"] = header.format
        return image, fields

    async def _item_of(self, request: web.Request) -> tuple[Shelf, Item]:
        shelf = await self.library.shelf(request.match_info["collection"])
        return shelf, await self.library.item(shelf, request.match_info["item_id"])

    def _answer_found(
        self, request: web.Request, found: Found, neighbors: list[Neighbor] | tuple[Neighbor, ...]
    ) -> web.Response:
        of = {
            "collection": found.neighbors.collection,
            "index_version": found.neighbors.index_version,
            "model_id": found.neighbors.model_id,
        }
        timings = self._timings(found.timed)
        request[FACTS].update(of, neighbors=len(neighbors), timings_ms=timings)
        collection = found.neighbors.collection
        query_id: str = request[QUERY_ID]
        body = {
            "query_id": query_id,
            **of,
            "neighbors": [_neighbor(collection, neighbor) for neighbor in neighbors],
            "timings_ms": timings,
        }
        return web.json_response(body, headers=_server_timing(found.timed))

    def _timings(self, timed: Timed) -> dict[str, float]:
        seconds = timed.seconds()
        for stage, spent in seconds.items():
            if stage != "total":
                self.metrics.stage_seconds.labels(stage=stage).observe(spent)
        return {stage: round(1000 * spent, 3) for stage, spent in seconds.items()}


def _collection(shelf: Shelf) -> dict[str, Any]:
    manifest = shelf.manifest
    return {
        "name": manifest.collection,
        "count": manifest.count,
        "model_id": manifest.model_id,
        "dimension": manifest.dimension,
        "index_version": manifest.version,
        "recall": manifest.recall,
        "created_unix_ms": manifest.created_unix_ms,
    }


def _urls(collection: str, item_id: str) -> dict[str, str]:
    address = f"/v1/items/{collection}/{item_id}"
    return {"image_url": f"{address}/image", "thumbnail_url": f"{address}/thumbnail"}


def _item(shelf: Shelf, item: Item) -> dict[str, Any]:
    return {
        "item_id": item.item_id,
        "label": item.label,
        "attributes": dict(item.attributes),
        "width": item.width,
        "height": item.height,
        **_urls(shelf.manifest.collection, item.item_id),
    }


def _neighbor(collection: str, neighbor: Neighbor) -> dict[str, Any]:
    return {
        "item_id": neighbor.item_id,
        "label": neighbor.label,
        "attributes": dict(neighbor.attributes),
        "distance": neighbor.distance,
        "similarity": neighbor.similarity,
        **_urls(collection, neighbor.item_id),
    }


def _server_timing(timed: Timed) -> dict[str, str]:
    entries = (f"{stage};dur={1000 * spent:.3f}" for stage, spent in timed.seconds().items())
    return {"Server-Timing": ", ".join(entries)}


def _unchanged(request: web.Request, tag: str) -> bool:
    return any(f'"{known.value}"' == tag for known in request.if_none_match or ())


def _caching(tag: str) -> dict[str, str]:
    return {"ETag": tag, "Cache-Control": f"private, max-age={_ITEM_MAX_AGE_SECONDS}"}


def _not_modified(tag: str) -> web.Response:
    return web.Response(status=304, headers=_caching(tag))


def _picture(picture: Picture, tag: str) -> web.Response:
    return web.Response(
        body=picture.content, content_type=picture.media_type, headers=_caching(tag)
    )


def _trace(request: web.Request) -> str:
    # W3C trace context is 55 characters of hex and dashes; what isn't, is not passed on.
    given = request.headers.get("traceparent", "")
    return given if len(given) == 55 and set(given) <= set("0123456789abcdef-") else ""  # noqa: PLR2004
