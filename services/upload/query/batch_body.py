"""Reads a batch: the images of a form, and the images at the addresses that the form names."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from aiohttp import BodyPartReader, web

from services.shared.errors import (
    EmptyImage,
    ImageTooLarge,
    MalformedRequest,
    SimileError,
    UnsupportedCoding,
    UnsupportedFormat,
    UrlUnreachable,
)
from services.upload.http.bodies import Body
from services.upload.query.body import Fetch, plain_image, require_plain, single_values
from services.upload.query.form import (
    ADDRESS_FIELD,
    CHUNK_BYTES,
    IMAGE_FIELD,
    is_form,
    read_form,
    read_part,
)
from services.upload.query.limits import FORM_OVERHEAD_BYTES, BodyLimits, too_large
from services.upload.query.parameters import Fields, max_field_bytes
from services.upload.security.header_checks import send_continue

_MAX_NAME: Final = 255


@dataclass(frozen=True, slots=True)
class Upload:
    """An image of a batch with its file name or address, or the error in place of its bytes."""

    name: str | None
    content: bytes | SimileError


@dataclass(frozen=True, slots=True)
class _Address:
    """The address of an image to fetch."""

    text: str


class BatchReader:
    """Reads a batch, in the order of its form."""

    def __init__(
        self, limits: BodyLimits, body: Body, fetch: Fetch, on_another: Callable[[], None]
    ) -> None:
        """Create a reader.

        Args:
            limits: the limits of the batch.
            body: counts the bytes.
            fetch: gets the image at an address; its errors concern only that image.
            on_another: is called before every image but the first, and may raise to end the batch.
        """
        self._limits = limits
        self._body = body
        self._fetch = fetch
        self._on_another = on_another
        self._found = list[Upload | _Address]()
        self._left_bytes = limits.batch_bytes

    async def read(self, request: web.Request) -> tuple[list[Upload], Fields]:
        """Read the images, and the parameters as `read_image` reads them.

        An image that is too large, or can't be fetched, fails alone.

        Raises:
            ImageTooLarge: the images together have too many bytes.
            BodyTimeout: the form arrives too slowly.
            EmptyImage: the form has no image.
            MalformedRequest: the form can't be read, or has too many images.
        """
        require_plain(request)
        if not is_form(request):
            message = (
                f"send a multipart form with a field {IMAGE_FIELD!r} for each image of the batch; "
                "POST /v1/search takes one image as JSON"
            )
            raise MalformedRequest(message)
        if (request.content_length or 0) > self._limits.batch_bytes + FORM_OVERHEAD_BYTES:
            raise self._too_large()
        await send_continue(request)
        takers = {IMAGE_FIELD: self._take_image, ADDRESS_FIELD: self._take_address}
        async with self._body.time_limit():
            form = await read_form(request, self._body, takers)
        fields = {**form, **single_values(request)}
        if ADDRESS_FIELD in fields:
            self._add(_Address(fields.pop(ADDRESS_FIELD)))
        if not self._found:
            message = (
                f"send 1 to {self._limits.batch_images} images as form fields named {IMAGE_FIELD!r}"
            )
            raise EmptyImage(message)
        return await self._fetched(), fields

    def _require_room(self) -> None:
        if len(self._found) == self._limits.batch_images:
            message = (
                f"a batch holds {self._limits.batch_images} images at most; send the rest in "
                "another batch"
            )
            raise MalformedRequest(message)
        if self._found:
            self._on_another()

    def _add(self, image: Upload | _Address) -> None:
        self._require_room()
        self._found.append(image)

    async def _take_address(self, part: BodyPartReader) -> None:
        limit = max_field_bytes(ADDRESS_FIELD)
        too_long = MalformedRequest(f"form field {ADDRESS_FIELD!r} has more than {limit} bytes")
        self._add(_Address((await read_part(part, self._body, limit, too_long)).decode()))

    async def _take_image(self, part: BodyPartReader) -> None:
        """Read an image and count its bytes; bytes beyond its limit are dropped."""
        self._require_room()
        content, size, limit = bytearray(), 0, self._limits.image.max_bytes
        while chunk := await part.read_chunk(CHUNK_BYTES):
            self._body.add_bytes(len(chunk))
            size += len(chunk)
            self._count(len(chunk))
            if size <= limit:
                content += chunk
            else:
                content.clear()
        name = _shortened(part.filename or "")
        found = too_large(limit) if size > limit else await self._plain(content)
        self._found.append(Upload(name, found))

    async def _plain(self, content: bytearray) -> bytes | SimileError:
        """Return the bytes of an image, or what is wrong with it."""
        limit = self._limits.image.max_bytes
        try:
            return await plain_image(content, "", self._body, limit, in_form=True)
        except (MalformedRequest, UnsupportedCoding, UnsupportedFormat, ImageTooLarge) as error:
            return error

    def _count(self, size: int) -> None:
        self._left_bytes -= size
        if self._left_bytes < 0:
            raise self._too_large()

    async def _fetched(self) -> list[Upload]:
        """Fetch the images named by address, one after another, to bound the memory.

        All fetches together have the timeout of a body.
        """
        ends_at = asyncio.get_running_loop().time() + self._body.timeout_seconds
        return [
            one if isinstance(one, Upload) else await self._fetch_one(one.text, ends_at)
            for one in self._found
        ]

    async def _fetch_one(self, address: str, ends_at: float) -> Upload:
        name = _shortened(address)
        try:
            async with asyncio.timeout_at(ends_at):
                content = await self._fetch(address)
        except TimeoutError:
            message = "the images before this one took all of the time; send fewer addresses"
            return Upload(name, UrlUnreachable(message))
        except SimileError as error:
            return Upload(name, error)
        self._body.add_bytes(len(content))
        self._count(len(content))
        return Upload(name, content)

    def _too_large(self) -> ImageTooLarge:
        return ImageTooLarge(
            f"a batch may have {self._limits.batch_bytes} bytes at most; send fewer images"
        )


def _shortened(name: str) -> str | None:
    return name.encode(errors="replace").decode()[:_MAX_NAME] or None
