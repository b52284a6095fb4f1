"""Reads images and parameters out of a request's body and query string, within the limits."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final

from aiohttp import BodyPartReader, hdrs, web
from aiohttp.http_exceptions import BadHttpMessage

from services.shared import imaging
from services.shared.errors import (
    EmptyImage,
    ImageTooLarge,
    MalformedRequest,
    UnsupportedCoding,
)
from services.upload.http.bodies import Body
from services.upload.query.parameters import FIELD_BYTES, SHORT_FIELD_BYTES, Fields
from services.upload.security.header_checks import send_continue

_FIELD: Final = "image"
_ADDRESS: Final = "image_url"
_MAX_FIELDS: Final = 8
_MAX_NAME: Final = 255
_CHUNK_BYTES: Final = 64 * 1024
_PLAIN: Final = frozenset({"", "identity"})
_PLAIN_TRANSFER: Final = frozenset({"", "7bit", "8bit", "binary"})

FORM_OVERHEAD_BYTES: Final = 64 * 1024
"""What a form may hold besides images: parameters, boundaries, the heads of its parts."""


@dataclass(frozen=True, slots=True)
class BodyLimits:
    """What one body may hold: one image, or a batch of them."""

    image: imaging.Limits
    batch_images: int
    batch_bytes: int


@dataclass(frozen=True, slots=True)
class Upload:
    """An image of a batch with its file's name; the error where it has too many bytes."""

    name: str | None
    content: bytes | ImageTooLarge


Fetch = Callable[[str], Awaitable[bytes]]
"""Gets the image at an address."""


async def read_image(
    request: web.Request, limits: BodyLimits, body: Body, fetch: Fetch | None = None
) -> tuple[bytes, Fields]:
    """Read the image, and the parameters of query string and form (the query string wins).

    The image is the form field `image` of a multipart body, or else the body itself; where there
    is `fetch`, the parameter `image_url` may stand for it, and is left out of the parameters.
    Raises ImageTooLarge (before reading, where Content-Length says so), BodyTimeout,
    EmptyImage, MalformedRequest, Overloaded, RateLimited, and what `fetch` raises.
    """
    _require_plain(request)
    most = limits.image.max_bytes
    multipart = _is_form(request)
    if (request.content_length or 0) > most + (FORM_OVERHEAD_BYTES if multipart else 0):
        raise _too_large(most)
    image, form = bytearray(), dict[str, str]()

    async def take(part: BodyPartReader) -> None:
        _require_once(bool(image), "form field", _FIELD)
        image.extend(await _read_part(part, body, most, _too_large(most)))

    await send_continue(request)
    async with body.time_limit():
        if multipart:
            form = await _read_form(request, body, take)
        else:
            image = await _read_body(request, body, most)
    fields = {**form, **single_values(request)}
    if fetch is not None and _ADDRESS in fields:
        if image:
            message = f"send the image or {_ADDRESS}, not both"
            raise MalformedRequest(message)
        fetched = await fetch(fields.pop(_ADDRESS))
        body.add_bytes(len(fetched))
        return fetched, fields
    if not image:
        message = f"send the image as the body, or as the form field {_FIELD!r}"
        raise EmptyImage(message)
    return bytes(image), fields


async def read_batch(
    request: web.Request, limits: BodyLimits, body: Body, on_another: Callable[[], None]
) -> tuple[list[Upload], Fields]:
    """Read the images of a form, in its order, and the parameters as `read_image` reads them.

    on_another is called before every image but the first is read, and may raise to end it there.
    An image of too many bytes is passed over; raises ImageTooLarge when all of them are too many,
    BodyTimeout, EmptyImage when there is none, MalformedRequest.
    """
    _require_plain(request)
    if not _is_form(request):
        message = f"a batch is a multipart form with a field {_FIELD!r} for each image"
        raise MalformedRequest(message)
    if (request.content_length or 0) > limits.batch_bytes + FORM_OVERHEAD_BYTES:
        raise _batch_too_large(limits)
    uploads, left = list[Upload](), limits.batch_bytes

    async def take(part: BodyPartReader) -> None:
        nonlocal left
        if len(uploads) == limits.batch_images:
            message = (
                f"a batch holds {limits.batch_images} images at most; send the rest in another"
            )
            raise MalformedRequest(message)
        if uploads:
            on_another()
        upload, size = await _read_upload(part, body, limits, left)
        left -= size
        uploads.append(upload)

    await send_continue(request)
    async with body.time_limit():
        form = await _read_form(request, body, take)
    if not uploads:
        message = f"send 1 to {limits.batch_images} images as form fields named {_FIELD!r}"
        raise EmptyImage(message)
    return uploads, {**form, **single_values(request)}


async def read_header(image: bytes, limits: imaging.Limits) -> imaging.Header:
    """The header, by a thread only where that can take long: a thread's hop costs more than most.

    Raises what `imaging.sniff` raises.
    """
    header = imaging.sniff_start(image, limits)
    if header is not None:
        return header
    return await asyncio.to_thread(imaging.sniff, image, limits)


async def read_small(request: web.Request, max_bytes: int, body: Body) -> bytes:
    """Read a body that is no image. Raises MalformedRequest when it is too long, BodyTimeout."""
    _require_plain(request)
    await send_continue(request)
    content = bytearray()
    async with body.time_limit():
        async for chunk in request.content.iter_chunked(_CHUNK_BYTES):
            body.add_bytes(len(chunk))
            content += chunk
            if len(content) > max_bytes:
                message = f"this body may have {max_bytes} bytes at most"
                raise MalformedRequest(message)
    return bytes(content)


def single_values(request: web.Request) -> dict[str, str]:
    """The query string's parameters. Raises MalformedRequest for one given twice."""
    for name in request.query:
        _require_once(len(request.query.getall(name)) > 1, "parameter", name)
    return dict(request.query)


def _require_plain(request: web.Request) -> None:
    """Raise UnsupportedCoding for a compressed body: nothing bounds what one may grow to."""
    coding = request.headers.get(hdrs.CONTENT_ENCODING, "")
    if coding.strip().lower() not in _PLAIN:
        message = f"the body has Content-Encoding: {coding[:40]!a}; send it as it is"
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


def _is_form(request: web.Request) -> bool:
    return request.content_type.startswith("multipart/")


async def _read_body(request: web.Request, body: Body, max_bytes: int) -> bytearray:
    content = bytearray()
    async for chunk in request.content.iter_chunked(_CHUNK_BYTES):
        body.add_bytes(len(chunk))
        content += chunk
        if len(content) > max_bytes:
            raise _too_large(max_bytes)
    return content


async def _read_form(
    request: web.Request, body: Body, take_image: Callable[[BodyPartReader], Awaitable[None]]
) -> dict[str, str]:
    """The form's parameters; its images go to take_image. Raises MalformedRequest."""
    form = dict[str, str]()
    try:
        async for part in await request.multipart():
            if not isinstance(part, BodyPartReader) or part.name is None:
                message = "a part of the form has no name, or is a form itself"
                raise MalformedRequest(message)
            _require_plain_part(part)
            if part.name == _FIELD:
                await take_image(part)
            else:
                await _take_field(form, part.name, part, body)
    except (ValueError, RuntimeError, AssertionError, BadHttpMessage) as error:
        # What aiohttp raises on a form that does not parse.
        message = f"the form can't be read: {error}"
        raise MalformedRequest(message) from error
    return form


async def _take_field(form: dict[str, str], name: str, part: BodyPartReader, body: Body) -> None:
    _require_once(name in form, "form field", name)
    if len(form) == _MAX_FIELDS:
        message = f"the form has more than {_MAX_FIELDS} fields"
        raise MalformedRequest(message)
    most = FIELD_BYTES.get(name, SHORT_FIELD_BYTES)
    too_long = MalformedRequest(f"form field {name[:40]!r} has more than {most} bytes")
    form[name] = (await _read_part(part, body, most, too_long)).decode()


async def _read_part(part: BodyPartReader, body: Body, limit: int, too_long: Exception) -> bytes:
    content = bytearray()
    while chunk := await part.read_chunk(_CHUNK_BYTES):
        body.add_bytes(len(chunk))
        content += chunk
        if len(content) > limit:
            raise too_long
    return bytes(content)


async def _read_upload(
    part: BodyPartReader, body: Body, limits: BodyLimits, left: int
) -> tuple[Upload, int]:
    """Read an image of a batch, and count its bytes; none is kept over its limit."""
    content, size = bytearray(), 0
    while chunk := await part.read_chunk(_CHUNK_BYTES):
        body.add_bytes(len(chunk))
        size += len(chunk)
        if size > left:
            raise _batch_too_large(limits)
        if size <= limits.image.max_bytes:
            content += chunk
        else:
            content.clear()
    name = (part.filename or "").encode(errors="replace").decode()[:_MAX_NAME] or None
    if size > limits.image.max_bytes:
        return Upload(name, _too_large(limits.image.max_bytes)), size
    return Upload(name, bytes(content)), size


def _require_once(again: bool, what: str, name: str) -> None:  # noqa: FBT001 (an assertion's condition)
    if again:
        message = f"{what} {name[:40]!r} is given twice"
        raise MalformedRequest(message)


def _too_large(max_bytes: int) -> ImageTooLarge:
    return ImageTooLarge(f"an image may have {max_bytes} bytes at most; send a smaller one")


def _batch_too_large(limits: BodyLimits) -> ImageTooLarge:
    return ImageTooLarge(f"a batch may have {limits.batch_bytes} bytes at most; send fewer images")
