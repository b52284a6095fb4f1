"""Reads images and parameters from a request's body and query string, within limits."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Awaitable, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Final

from aiohttp import BodyPartReader, hdrs, web

from services.shared import imaging
from services.shared.contracts.parameters import Route
from services.shared.errors import (
    DeadlineExceeded,
    EmptyImage,
    MalformedRequest,
    UnsupportedCoding,
)
from services.upload.http.bodies import Body
from services.upload.query.encoded_image import decode_image, is_encoded
from services.upload.query.form import (
    ADDRESS_FIELD,
    CHUNK_BYTES,
    IMAGE_FIELD,
    PLAIN_CODINGS,
    is_form,
    read_form,
    read_part,
    require_once,
)
from services.upload.query.json_body import is_json, max_json_bytes, read_json_query
from services.upload.query.limits import FORM_OVERHEAD_BYTES, BodyLimits, too_large
from services.upload.query.parameters import names, require_known
from services.upload.query.wrong_body import HEAD_BYTES, explanation
from services.upload.security.header_checks import send_continue

_JSON: Final = "application/json"
_JSON_SUFFIX: Final = "+json"
_INSTEAD: Final = frozenset({ADDRESS_FIELD, "vector"})
"""Parameters that take the place of an image."""

_CHUNKED: Final = frozenset({"", "chunked"})
_SNIFFERS: Final = 2
"""Threads that read headers; other work has its own threads."""

Fetch = Callable[[str], Awaitable[bytes]]
"""Gets the image at an address."""


async def read_query(
    request: web.Request, route: Route, limits: BodyLimits, body: Body, fetch: Fetch
) -> tuple[bytes, dict[str, str]]:
    """Read the image, and the parameters of query string and body (the query string wins).

    The image is the body itself, the form field `image`, or the member `image` of a JSON object;
    `fetch` gets it where the parameter `image_url` names it. Base64 and data URLs are decoded.
    Where the parameter `vector` takes its place, there is no image.

    Returns:
        The bytes of the image, and the parameters without `image_url`.

    Raises:
        ImageTooLarge: the image has too many bytes; before reading, where Content-Length says so.
        EmptyImage: there is neither an image nor a parameter in its place.
        MalformedRequest: the body can't be read, or a parameter is unknown.
        BodyTimeout: the body arrives too slowly; Overloaded, RateLimited: bodies hold too much.
    """
    require_plain(request)
    limit = limits.image.max_bytes
    multipart = is_form(request)
    _require_size(request, limit)
    await send_continue(request)
    async with body.time_limit():
        if multipart:
            image, form = await _read_form(request, body, limit)
        else:
            image, form = await _read_body(request, body, limit)
    fields = {**form, **single_values(request)}
    require_known(fields, names(route))
    in_place = fields.keys() & _INSTEAD
    if len(in_place) + bool(image) > 1:
        message = f"send {' or '.join([IMAGE_FIELD, *sorted(in_place)])}, not both"
        raise MalformedRequest(message)
    if ADDRESS_FIELD in fields:
        image = await fetch(fields.pop(ADDRESS_FIELD))
        body.add_bytes(len(image))
    elif not image and not in_place:
        message = f"send the image as the body, or as the form field {IMAGE_FIELD!r}"
        raise EmptyImage(message)
    return image, fields


def _require_size(request: web.Request, limit: int) -> None:
    """Raise ImageTooLarge where the head announces more bytes than a body may have."""
    most = limit
    if is_form(request):
        most += FORM_OVERHEAD_BYTES
    elif _says_json(request):
        most = max_json_bytes(limit)
    if (request.content_length or 0) > most:
        raise too_large(limit)


async def _read_form(
    request: web.Request, body: Body, limit: int
) -> tuple[bytes, Mapping[str, str]]:
    image = bytearray()

    async def take(part: BodyPartReader) -> None:
        several = "; POST /v1/search/batch takes several images"
        require_once(bool(image), "form field", IMAGE_FIELD, several)
        image.extend(await read_part(part, body, limit, too_large(limit)))

    form = await read_form(request, body, {IMAGE_FIELD: take})
    return await plain_image(image, request.content_type, body, limit, in_form=True), form


async def _read_body(
    request: web.Request, body: Body, limit: int
) -> tuple[bytes, Mapping[str, str]]:
    """Read a body that is an image or, by its first byte, a JSON object."""
    content, most = bytearray(), max_json_bytes(limit) if _says_json(request) else limit
    async for chunk in request.content.iter_chunked(CHUNK_BYTES):
        body.add_bytes(len(chunk))
        content += chunk
        if len(content) > most:
            raise too_large(limit)
    if is_json(content):
        query = read_json_query(content)
        image = await decode_image(query.image, body, limit) if query.image else b""
        return image, query.fields
    if len(content) > limit:
        raise too_large(limit)
    return await plain_image(content, request.content_type, body, limit, in_form=False), {}


async def plain_image(
    content: bytearray, media_type: str, body: Body, limit: int, *, in_form: bool
) -> bytes:
    """Return the bytes of an image that may be base64 or a data URL.

    Raises MalformedRequest, UnsupportedCoding or UnsupportedFormat for what is known to be none.
    """
    if is_encoded(content):
        return await decode_image(content, body, limit)
    wrong = explanation(content[:HEAD_BYTES], media_type, in_form=in_form)
    if wrong is not None:
        raise wrong
    return bytes(content)


def _says_json(request: web.Request) -> bool:
    return request.content_type == _JSON or request.content_type.endswith(_JSON_SUFFIX)


async def read_header(image: bytes, limits: imaging.Limits, within_seconds: float) -> imaging.Probe:
    """Read the header; in a thread only if it may take long, since changing threads is slow.

    Raises what `imaging.probe` raises, and DeadlineExceeded.
    """
    known = imaging.probe_start(image, limits)
    if known is not None:
        return known
    loop = asyncio.get_running_loop()
    try:
        async with asyncio.timeout(within_seconds):
            return await loop.run_in_executor(_sniffers(), imaging.probe, image, limits)
    except TimeoutError:
        message = f"the image's header was not read within {within_seconds:.3g} s; try again"
        raise DeadlineExceeded(message) from None


@functools.cache
def _sniffers() -> ThreadPoolExecutor:
    """Return the threads that read headers: slow images do not delay other work."""
    return ThreadPoolExecutor(_SNIFFERS, "sniff")


async def read_small(request: web.Request, max_bytes: int, body: Body) -> bytes:
    """Read a body other than an image. Raises MalformedRequest when it is too long, BodyTimeout."""
    require_plain(request)
    await send_continue(request)
    content = bytearray()
    async with body.time_limit():
        async for chunk in request.content.iter_chunked(CHUNK_BYTES):
            body.add_bytes(len(chunk))
            content += chunk
            if len(content) > max_bytes:
                message = f"this body may have {max_bytes} bytes at most"
                raise MalformedRequest(message)
    return bytes(content)


def single_values(request: web.Request) -> dict[str, str]:
    """Return the query string's parameters. Raises MalformedRequest for a repeated one."""
    for name in request.query:
        require_once(len(request.query.getall(name)) > 1, "parameter", name)
    return dict(request.query)


def require_plain(request: web.Request) -> None:
    """Raise UnsupportedCoding for a compressed body, whose size is unknown."""
    coding = request.headers.get(hdrs.CONTENT_ENCODING, "")
    if coding.strip().lower() not in PLAIN_CODINGS:
        message = f"the body has Content-Encoding: {coding[:40]!a}; send it as it is"
        raise UnsupportedCoding(message)
    # aiohttp decodes no transfer coding but chunked: other codings would be taken for the image.
    coding = ",".join(request.headers.getall(hdrs.TRANSFER_ENCODING, ()))
    if coding.strip().lower() not in _CHUNKED:
        message = f"the body has Transfer-Encoding: {coding[:40]!a}; send it plain or chunked"
        raise UnsupportedCoding(message)
