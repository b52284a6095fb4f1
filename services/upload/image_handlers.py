"""Handles the routes that answer with an image: an item's file, its thumbnail, and a preview."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from aiohttp import web

from services.shared.contracts.parameters import DEFAULT_PREVIEW_PIXELS, Route
from services.shared.volume.items import Item
from services.upload.collection_handlers import requested_item
from services.upload.collections import CollectionReader, OpenCollection
from services.upload.http.context import ALLOWANCE, FACTS, caller_deadline
from services.upload.metrics import UploadMetrics
from services.upload.query.body import read_header, read_query, single_values
from services.upload.query.image_input import ImageInput
from services.upload.query.parameters import parse
from services.upload.search.search_client import SearchClient
from services.upload.stored_images import EncodedImage

_ITEM_MAX_AGE_SECONDS: Final = 300
_IMAGE_TAG: Final = '"{}"'
_THUMBNAIL_TAG: Final = '"{{}}-thumbnail{}"'
"""ETags, of the SHA-256 of the file's bytes; a thumbnail's also of its size."""


@dataclass(frozen=True, slots=True)
class ImageHandlers:
    """The routes of images."""

    client: SearchClient
    collections: CollectionReader
    metrics: UploadMetrics
    inputs: ImageInput

    def routes(self) -> list[web.RouteDef]:
        """The routes."""
        return [
            web.get("/v1/items/{collection}/{item_id}/image", self.image),
            web.get(Route.THUMBNAIL, self.thumbnail),
            web.post(Route.PREVIEW, self.preview),
        ]

    async def image(self, request: web.Request) -> web.StreamResponse:
        """GET .../image: the stored file as it is now."""
        opened, item = await requested_item(self.collections, request)
        if (unchanged := await self._unchanged(request, opened, item, _IMAGE_TAG)) is not None:
            return unchanged
        picture = await self.collections.images.image(opened.manifest, item)
        return _image_response(request, picture, _IMAGE_TAG)

    async def thumbnail(self, request: web.Request) -> web.StreamResponse:
        """GET .../thumbnail: a small JPEG."""
        size = parse(single_values(request), Route.THUMBNAIL).get("size")
        tag = _THUMBNAIL_TAG.format(f"-{size}" if size else "")
        opened, item = await requested_item(self.collections, request)
        if (unchanged := await self._unchanged(request, opened, item, tag)) is not None:
            return unchanged
        picture, cached = await self.collections.images.thumbnail(opened.manifest, item, size)
        self.metrics.thumbnails.labels(source="cache" if cached else "made").inc()
        return _image_response(request, picture, tag)

    async def preview(self, request: web.Request) -> web.Response:
        """POST /v1/preview: the image in the body in a format that every browser shows."""
        until = caller_deadline(request)
        limits = self.inputs.limits
        announced = min(request.content_length or 0, limits.image.max_bytes)
        with self.inputs.bodies.arriving(request[ALLOWANCE].caller, announced) as body:
            # The route takes no image_url, which would show what is behind an allowed host.
            image, fields = await read_query(
                request, Route.PREVIEW, limits, body, self.inputs.fetch
            )
            body.arrived()
            size = parse(fields, Route.PREVIEW).get("size", DEFAULT_PREVIEW_PIXELS)
            header = await read_header(image, limits.image, self.client.left_seconds(until))
            request[FACTS].update(bytes=len(image), format=header.format)
            picture = await self.collections.images.preview(image, header, limits.image, size)
        return web.Response(body=picture.content, content_type=picture.media_type)

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
