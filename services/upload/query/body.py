"""Reads images and parameters from a request's body and query string, within limits."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Awaitable, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Final

from aiohttp import BodyPartReader, hdrs, web
from aiohttp.http_exceptions import BadHttpMessage

from services.shared import imaging
from services.shared.errors import (
    DeadlineExceeded,
    EmptyImage,
    ImageTooLarge,
    MalformedRequest,
    UnsupportedCoding,
)
from services.upload.http.bodies import Body
from services.upload.query.parameters import Fields, max_field_bytes
from services.upload.security.header_checks import send_continue

IMAGE_FIELD: Final = "image"
ADDRESS_FIELD: Final = "image_url"
_MAX_FIELDS: Final = 8
_MAX_NAME: Final = 255
CHUNK_BYTES: Final = 64 * 1024
_PLAIN: Final = frozenset({"", "identity"})
_CHUNKED: Final = frozenset({"", "chunked"})
_PLAIN_TRANSFER: Final = frozenset({"", "7bit", "8bit", "binary"})

_SNIFFERS: Final = 2
"""Threads that read headers; other work has its own threads."""

FORM_OVERHEAD_BYTES: Final = 64 * 1024
"""The maximum size of a form beside its images: parameters, boundaries, headers of its parts."""


@dataclass(frozen=True, slots=True)
class BodyLimits:
    """Limits the bytes of a body, which is an image or a batch."""

    image: imaging.Limits
    batch_images: int
    batch_bytes: int


Fetch = Callable[[str], Awaitable[bytes]]
"""Gets the image at an address."""

TakePart = Callable[[BodyPartReader], Awaitable[None]]
"""Reads one field of a form."""


async def read_image(
    request: web.Request, limits: BodyLimits, body: Body, fetch: Fetch
) -> tuple[bytes, Fields]:
    """Read the image, and the parameters of query string and form (the query string wins).

    The image is the form field `image` of a multipart body, or the body itself. With the parameter
    `image_url`, `fetch` gets the image, and the parameter is removed.
    Raises ImageTooLarge (before reading, if Content-Length shows it), BodyTimeout,
    EmptyImage, MalformedRequest, Overloaded, RateLimited, and what `fetch` raises.
    """
    require_plain(request)
    limit = limits.image.max_bytes
    multipart = is_form(request)
    if (request.content_length or 0) > limit + (FORM_OVERHEAD_BYTES if multipart else 0):
        raise too_large(limit)
    image, form = bytearray(), dict[str, str]()

    async def take(part: BodyPartReader) -> None:
        _require_once(bool(image), "form field", IMAGE_FIELD)
        image.extend(await read_part(part, body, limit, too_large(limit)))

    await send_continue(request)
    async with body.time_limit():
        if multipart:
            form = await read_form(request, body, {IMAGE_FIELD: take})
        else:
            image = await _read_body(request, body, limit)
    fields = {**form, **single_values(request)}
    if ADDRESS_FIELD in fields:
        if image:
            message = f"send the image or {ADDRESS_FIELD}, not both"
            raise MalformedRequest(message)
        fetched = await fetch(fields.pop(ADDRESS_FIELD))
        body.add_bytes(len(fetched))
        return fetched, fields
    if not image:
        message = f"send the image as the body, or as the form field {IMAGE_FIELD!r}"
        raise EmptyImage(message)
    return bytes(image), fields


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
        _require_once(len(request.query.getall(name)) > 1, "parameter", name)
    return dict(request.query)


def require_plain(request: web.Request) -> None:
    """Raise UnsupportedCoding for a compressed body, whose size is unknown."""
    coding = request.headers.get(hdrs.CONTENT_ENCODING, "")
    if coding.strip().lower() not in _PLAIN:
        message = f"the body has Content-Encoding: {coding[:40]!a}; send it as it is"
        raise UnsupportedCoding(message)
    # aiohttp decodes no transfer coding but chunked: other codings would be taken for the image.
    coding = ",".join(request.headers.getall(hdrs.TRANSFER_ENCODING, ()))
    if coding.strip().lower() not in _CHUNKED:
        message = f"the body has Transfer-Encoding: {coding[:40]!a}; send it plain or chunked"
        raise UnsupportedCoding(message)


def _require_plain_part(part: BodyPartReader) -> None:
    """Raise MalformedRequest for a part of a form that has a coding."""
    for name, plain in (
        (hdrs.CONTENT_ENCODING, _PLAIN),
        (hdrs.CONTENT_TRANSFER_ENCODING, _PLAIN_TRANSFER),
    ):
        coding = part.headers.get(name, "")
        if coding.strip().lower() not in plain:
            message = f"a part of the form has {name}: {coding[:40]!a}; send it as it is"
            raise MalformedRequest(message)


def is_form(request: web.Request) -> bool:
    """Return True for a multipart body."""
    return request.content_type.startswith("multipart/")


async def _read_body(request: web.Request, body: Body, max_bytes: int) -> bytearray:
    content = bytearray()
    async for chunk in request.content.iter_chunked(CHUNK_BYTES):
        body.add_bytes(len(chunk))
        content += chunk
        if len(content) > max_bytes:
            raise too_large(max_bytes)
    return content


async def read_form(
    request: web.Request, body: Body, takers: Mapping[str, TakePart]
) -> dict[str, str]:
    """Return the form's parameters; fields named in takers go to their functions instead.

    Raises MalformedRequest.
    """
    form = dict[str, str]()
    try:
        async for part in await request.multipart():
            if not isinstance(part, BodyPartReader) or part.name is None:
                message = "a part of the form has no name, or is a form itself"
                raise MalformedRequest(message)
            _require_plain_part(part)
            taker = takers.get(part.name)
            if taker is not None:
                await taker(part)
            else:
                await _take_field(form, part.name, part, body)
    except (ValueError, RuntimeError, AssertionError, BadHttpMessage) as error:
        # aiohttp raises these errors on an invalid form.
        message = f"the form can't be read: {error}"
        raise MalformedRequest(message) from error
    return form


async def _take_field(form: dict[str, str], name: str, part: BodyPartReader, body: Body) -> None:
    _require_once(name in form, "form field", name)
    if len(form) == _MAX_FIELDS:
        message = f"the form has more than {_MAX_FIELDS} fields"
        raise MalformedRequest(message)
    limit = max_field_bytes(name)
    too_long = MalformedRequest(f"form field {name[:40]!r} has more than {limit} bytes")
    form[name] = (await read_part(part, body, limit, too_long)).decode()


async def read_part(part: BodyPartReader, body: Body, limit: int, too_long: Exception) -> bytes:
    """Return the bytes of a form's field. Raises too_long where there are more than limit."""
    content = bytearray()
    while chunk := await part.read_chunk(CHUNK_BYTES):
        body.add_bytes(len(chunk))
        content += chunk
        if len(content) > limit:
            raise too_long
    return bytes(content)


def _require_once(again: bool, what: str, name: str) -> None:  # noqa: FBT001 (an assertion's condition)
    if again:
        message = f"{what} {name[:40]!r} is given twice"
        raise MalformedRequest(message)


def too_large(max_bytes: int) -> ImageTooLarge:
    """Return the error for an image with too many bytes."""
    return ImageTooLarge(f"an image may have {max_bytes} bytes at most; send a smaller one")
